package peers;

/** What one run of the job measures; the tasks of the mini cluster are in this process. */
final class Run {
    private static volatile Run current = new Run();

    final Labels labels = new Labels();
    final Stopwatch stopwatch = new Stopwatch();

    static Run current() {
        return current;
    }

    static Run begin() {
        current = new Run();
        return current;
    }
}
