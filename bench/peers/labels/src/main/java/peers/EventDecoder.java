package peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/**
 * JSON text to events with Jackson's streaming parser, which binds nothing by reflection: every
 * token of the text is read, so that a malformed record is found, and only what the join needs is
 * kept. Belongs to one thread.
 */
public final class EventDecoder {
    private static final byte[] NOTHING = new byte[0];
    private static final int LONGEST_ID = 255;

    private final JsonFactory factory = new JsonFactory();
    private final Event event = new Event();

    /** The event in `text`, valid until the next call. Throws when it is not one whole event. */
    public Event decode(Event.Kind kind, byte[] text) throws IOException {
        event.kind = kind;
        event.time = -1;
        event.impressionId = null;
        event.payload = NOTHING;
        String user = null;
        String item = null;
        int featuresBegin = -1;
        int featuresEnd = -1;
        try (JsonParser parser = factory.createParser(text)) {
            require(parser.nextToken() == JsonToken.START_OBJECT);
            for (String name; (name = parser.nextFieldName()) != null;) {
                JsonToken value = parser.nextToken();
                switch (name) {
                    case "ts" -> event.time = parser.getLongValue();
                    case "impression_id" -> event.impressionId = textOf(parser, value);
                    case "user_id" -> user = textOf(parser, value);
                    case "item_id" -> item = textOf(parser, value);
                    case "features" -> {
                        require(value == JsonToken.START_OBJECT);
                        featuresBegin = (int) parser.currentLocation().getByteOffset() - 1;
                        parser.skipChildren();
                        featuresEnd = (int) parser.currentLocation().getByteOffset();
                    }
                    default -> parser.skipChildren();
                }
            }
            require(parser.nextToken() == null);
        }
        require(event.time >= 0 && event.impressionId != null && user != null && item != null);
        if (kind == Event.Kind.IMPRESSION) {
            require(featuresBegin >= 0);
            event.payload = pack(user, item, text, featuresBegin, featuresEnd);
        }
        return event;
    }

    private static String textOf(JsonParser parser, JsonToken value) throws IOException {
        require(value == JsonToken.VALUE_STRING);
        return parser.getText();
    }

    private static byte[] pack(String user, String item, byte[] text, int begin, int end)
            throws IOException {
        byte[] userBytes = user.getBytes(StandardCharsets.UTF_8);
        byte[] itemBytes = item.getBytes(StandardCharsets.UTF_8);
        require(userBytes.length <= LONGEST_ID && itemBytes.length <= LONGEST_ID);
        byte[] payload = new byte[2 + userBytes.length + itemBytes.length + end - begin];
        payload[0] = (byte) userBytes.length;
        System.arraycopy(userBytes, 0, payload, 1, userBytes.length);
        int at = 1 + userBytes.length;
        payload[at++] = (byte) itemBytes.length;
        System.arraycopy(itemBytes, 0, payload, at, itemBytes.length);
        System.arraycopy(text, begin, payload, at + itemBytes.length, end - begin);
        return payload;
    }

    private static void require(boolean holds) throws IOException {
        if (!holds) {
            throw new IOException("a record is malformed");
        }
    }
}
