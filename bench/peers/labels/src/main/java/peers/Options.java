package peers;

import java.util.HashMap;
import java.util.Map;

/** `--name value` pairs of a command line. */
public final class Options {
    private final Map<String, String> values = new HashMap<>();

    public Options(String[] arguments) {
        for (int index = 0; index + 1 < arguments.length; index += 2) {
            values.put(arguments[index], arguments[index + 1]);
        }
        if (arguments.length % 2 != 0) {
            throw new IllegalArgumentException("an option without a value");
        }
    }

    public String text(String name) {
        String value = values.get("--" + name);
        if (value == null) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return value;
    }

    public String text(String name, String otherwise) {
        return values.getOrDefault("--" + name, otherwise);
    }

    public int number(String name) {
        return Integer.parseInt(text(name));
    }

    public long milliseconds(String name) {
        return Long.parseLong(text(name));
    }
}
