package peers;

/** What the join needs of one record of a log. */
public final class Event {
    public enum Kind { IMPRESSION, CLICK, PURCHASE }

    public Kind kind;
    /** Event time, ms. */
    public long time;
    public String impressionId;
    /**
     * Of an impression, what its samples carry: user and item, each a length byte and UTF-8, and
     * then the JSON text of the features, which the decoder has read through. Empty for other
     * kinds.
     */
    public byte[] payload;
}
