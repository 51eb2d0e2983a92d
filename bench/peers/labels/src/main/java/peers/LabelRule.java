package peers;

import java.util.Arrays;

/**
 * Which labels an impression gets: the same rule as Sluice's (docs/design.md) with attribution by
 * impression id, no clock skew, and purchases labelled when they happen. A click at t counts for an
 * impression at t_i when t_i <= t < t_i + click window, a purchase at t for the click at t_c when
 * t_c <= t < t_c + conversion window; the first of each counts. One sample when the click window
 * closes, and a second one when the conversion was not decided by then.
 *
 * <p>The rule decides and the peer acts: it keeps the OpenImpression, calls onTime at the times
 * that were asked for, and drops the impression when onTime says so. Events may come in any order
 * as long as onTime(t) comes after all that happened up to t.
 */
public final class LabelRule {
    /** What the rule asks of the peer. */
    public interface Actions {
        /** Call onTime once every event up to and including `time` (ms) has been given. */
        void callAt(long time);

        void sample(OpenImpression open, boolean clicked, boolean converted);

        /** The conversion of an impression whose sample came before. */
        void secondSample(OpenImpression open, boolean converted);

        /** A record that counts for nothing: a repeat, a duplicate, or out of every window. */
        void discard();
    }

    private final long clickWindowMs;
    private final long conversionWindowMs;

    public LabelRule(long clickWindowMs, long conversionWindowMs) {
        this.clickWindowMs = clickWindowMs;
        this.conversionWindowMs = conversionWindowMs;
    }

    /** Gives one event to the impression that it names. */
    public void onEvent(OpenImpression open, Event event, Actions actions) {
        switch (event.kind) {
            case IMPRESSION -> onImpression(open, event, actions);
            case CLICK -> onClick(open, event.time, actions);
            case PURCHASE -> {
                open.waitingPurchases = with(open.waitingPurchases, event.time);
                actions.callAt(event.time);
            }
        }
    }

    private void onImpression(OpenImpression open, Event event, Actions actions) {
        if (open.seen) {
            actions.discard();
            return;
        }
        open.seen = true;
        open.time = event.time;
        open.payload = event.payload;
        actions.callAt(clickClose(open));
        long[] clicks = open.waitingClicks;
        open.waitingClicks = new long[0];
        for (long click : clicks) {
            onClick(open, click, actions);
        }
    }

    private void onClick(OpenImpression open, long time, Actions actions) {
        if (!open.seen) {
            open.waitingClicks = with(open.waitingClicks, time);
            actions.callAt(time);
            return;
        }
        boolean inWindow = time >= open.time && time < open.time + clickWindowMs;
        boolean first = open.click == OpenImpression.NONE || time < open.click;
        if (!inWindow || !first) {
            actions.discard();
            return;
        }
        if (open.click != OpenImpression.NONE) {
            actions.discard();
        }
        open.click = time;
        actions.callAt(conversionClose(open));
    }

    /** Decides what can be decided at `now`. Returns whether the impression is to be dropped. */
    public boolean onTime(OpenImpression open, long now, Actions actions) {
        if (open.waitingPurchases.length > 0) {
            applyPurchases(open, now, actions);
        }
        if (!open.seen) {
            long[] still = Arrays.stream(open.waitingClicks).filter(time -> time > now).toArray();
            for (int left = open.waitingClicks.length - still.length; left > 0; --left) {
                actions.discard();
            }
            open.waitingClicks = still;
            return open.isEmpty();
        }
        boolean clicked = open.click != OpenImpression.NONE;
        boolean converted = open.purchase != OpenImpression.NONE;
        boolean closed = !clicked || now >= conversionClose(open);
        if (!open.labelled && now >= clickClose(open)) {
            open.labelled = true;
            actions.sample(open, clicked, converted);
        } else if (open.labelled && closed && !converted) {
            actions.secondSample(open, false);
        }
        if (!open.labelled || !closed) {
            return false;
        }
        for (int left = open.waitingPurchases.length; left > 0; --left) {
            actions.discard();  // read ahead of their turn: too late for this impression
        }
        return true;
    }

    private void applyPurchases(OpenImpression open, long now, Actions actions) {
        Arrays.sort(open.waitingPurchases);
        int due = 0;
        for (; due < open.waitingPurchases.length && open.waitingPurchases[due] <= now; ++due) {
            long time = open.waitingPurchases[due];
            boolean counts = open.seen && open.click != OpenImpression.NONE
                    && open.purchase == OpenImpression.NONE && time >= open.click
                    && time <= conversionClose(open);
            if (!counts) {
                actions.discard();
                continue;
            }
            open.purchase = time;
            if (open.labelled) {
                actions.secondSample(open, true);
            }
        }
        open.waitingPurchases =
                Arrays.copyOfRange(open.waitingPurchases, due, open.waitingPurchases.length);
    }

    /** The last millisecond of the click window. */
    private long clickClose(OpenImpression open) {
        return open.time + clickWindowMs - 1;
    }

    private long conversionClose(OpenImpression open) {
        return open.click + conversionWindowMs - 1;
    }

    private static long[] with(long[] times, long time) {
        long[] longer = Arrays.copyOf(times, times.length + 1);
        longer[times.length] = time;
        return longer;
    }
}
