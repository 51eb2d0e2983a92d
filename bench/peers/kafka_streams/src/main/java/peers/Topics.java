package peers;

/**
 * What the loader and the join agree on: a record's key is the impression id, its value the line,
 * its timestamp the event's. A record without a key ends its partition; its timestamp lies behind
 * every window, so that stream time passes them all.
 */
final class Topics {
    private final String[] ofKind;

    Topics(String commaSeparated) {
        ofKind = commaSeparated.split(",");
        if (ofKind.length != Event.Kind.values().length) {
            throw new IllegalArgumentException("three topics: impressions, clicks, purchases");
        }
    }

    String of(Event.Kind kind) {
        return ofKind[kind.ordinal()];
    }

    Event.Kind kindOf(String topic) {
        for (Event.Kind kind : Event.Kind.values()) {
            if (of(kind).equals(topic)) {
                return kind;
            }
        }
        throw new IllegalArgumentException(topic);
    }

    String[] all() {
        return ofKind.clone();
    }
}
