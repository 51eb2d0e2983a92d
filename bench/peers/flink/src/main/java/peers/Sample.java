package peers;

/** What the join puts out. A POJO as Flink knows it, so that nothing falls back to Kryo. */
public class Sample {
    public byte[] payload;
    /** The impression's second sample: its conversion alone. */
    public boolean second;
    public boolean clicked;
    public boolean converted;

    public Sample() {}
}
