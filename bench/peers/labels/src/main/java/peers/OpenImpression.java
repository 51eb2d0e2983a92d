package peers;

import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * What is kept under one impression id: the impression once it has come, its labels so far, and
 * the events whose turn in event time has not come. One record holds all, so that an unclicked
 * impression costs a store one write, one read and one removal.
 *
 * <p>Bytes: flags; for each of time, click and purchase that is there, 8 bytes; the waiting clicks
 * and purchases, each a 4-byte count and 8 bytes an event; the payload to the end.
 */
public final class OpenImpression {
    public static final long NONE = Long.MIN_VALUE;
    private static final long[] NO_TIMES = {};
    private static final int SEEN = 1;
    private static final int LABELLED = 2;
    private static final int CLICKED = 4;
    private static final int BOUGHT = 8;
    private static final int CLICKS_WAIT = 16;
    private static final int PURCHASES_WAIT = 32;

    /** The impression itself has come, not only clicks or purchases that name it. */
    public boolean seen;
    /** The label of its click is decided. */
    public boolean labelled;
    /** Of the impression, ms; only when seen. */
    public long time;
    /** Times of the first click and purchase that count, ms, or NONE. */
    public long click = NONE;
    public long purchase = NONE;
    /** Clicks that came before the impression; purchases that event time has not reached. */
    public long[] waitingClicks = NO_TIMES;
    public long[] waitingPurchases = NO_TIMES;
    public byte[] payload = {};

    public boolean isEmpty() {
        return !seen && waitingClicks.length == 0 && waitingPurchases.length == 0;
    }

    public byte[] encode() {
        int flags = (seen ? SEEN : 0) | (labelled ? LABELLED : 0) | (click != NONE ? CLICKED : 0)
                | (purchase != NONE ? BOUGHT : 0) | (waitingClicks.length > 0 ? CLICKS_WAIT : 0)
                | (waitingPurchases.length > 0 ? PURCHASES_WAIT : 0);
        ByteBuffer bytes = ByteBuffer.allocate(1 + 8 * 3 + 4 + 8 * waitingClicks.length + 4
                + 8 * waitingPurchases.length + payload.length);
        bytes.put((byte) flags);
        putIf(bytes, seen, time);
        putIf(bytes, click != NONE, click);
        putIf(bytes, purchase != NONE, purchase);
        putTimes(bytes, waitingClicks);
        putTimes(bytes, waitingPurchases);
        bytes.put(payload);
        return Arrays.copyOf(bytes.array(), bytes.position());
    }

    public static OpenImpression decode(byte[] encoded) {
        ByteBuffer bytes = ByteBuffer.wrap(encoded);
        int flags = bytes.get();
        OpenImpression open = new OpenImpression();
        open.seen = (flags & SEEN) != 0;
        open.labelled = (flags & LABELLED) != 0;
        open.time = open.seen ? bytes.getLong() : 0;
        open.click = (flags & CLICKED) != 0 ? bytes.getLong() : NONE;
        open.purchase = (flags & BOUGHT) != 0 ? bytes.getLong() : NONE;
        open.waitingClicks = (flags & CLICKS_WAIT) != 0 ? getTimes(bytes) : NO_TIMES;
        open.waitingPurchases = (flags & PURCHASES_WAIT) != 0 ? getTimes(bytes) : NO_TIMES;
        open.payload = Arrays.copyOfRange(encoded, bytes.position(), encoded.length);
        return open;
    }

    private static void putIf(ByteBuffer bytes, boolean there, long value) {
        if (there) {
            bytes.putLong(value);
        }
    }

    private static void putTimes(ByteBuffer bytes, long[] times) {
        if (times.length == 0) {
            return;
        }
        bytes.putInt(times.length);
        for (long each : times) {
            bytes.putLong(each);
        }
    }

    private static long[] getTimes(ByteBuffer bytes) {
        long[] times = new long[bytes.getInt()];
        for (int index = 0; index < times.length; ++index) {
            times[index] = bytes.getLong();
        }
        return times;
    }
}
