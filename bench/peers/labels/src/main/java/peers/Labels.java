package peers;

import java.util.concurrent.atomic.LongAdder;

/**
 * What one run has counted, over all threads of the process, as the benchmark compares it. The
 * samples themselves are dropped after their payload was looked at.
 */
public final class Labels {
    public final LongAdder events = new LongAdder();
    public final LongAdder impressions = new LongAdder();
    public final LongAdder clicked = new LongAdder();
    public final LongAdder converted = new LongAdder();
    public final LongAdder samples = new LongAdder();
    public final LongAdder payloadBytes = new LongAdder();
    public final LongAdder discarded = new LongAdder();
    public final LongAdder late = new LongAdder();
    /** The most impressions that were open at once: the sum of what each thread saw. */
    public final LongAdder mostOpen = new LongAdder();

    public void sample(int payloadLength, boolean isClicked, boolean isConverted) {
        samples.increment();
        impressions.increment();
        payloadBytes.add(payloadLength);
        if (isClicked) {
            clicked.increment();
        }
        if (isConverted) {
            converted.increment();
        }
    }

    public void secondSample(int payloadLength, boolean isConverted) {
        samples.increment();
        payloadBytes.add(payloadLength);
        if (isConverted) {
            converted.increment();
        }
    }
}
