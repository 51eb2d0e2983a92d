package peers;

/** What one run of the job measures. The mini cluster is in this process: its tasks find it here. */
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
