package peers;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import org.apache.flink.api.connector.source.SourceSplit;
import org.apache.flink.core.io.SimpleVersionedSerializer;

/** One partition of one topic, from a byte position on. */
final class LogSplit implements SourceSplit {
    final Event.Kind kind;
    final String path;
    /** Of the next line, bytes. Moves on in the reader as records are handed over. */
    long position;

    LogSplit(Event.Kind kind, String path, long position) {
        this.kind = kind;
        this.path = path;
        this.position = position;
    }

    @Override
    public String splitId() {
        return path;
    }

    static final class Serializer implements SimpleVersionedSerializer<LogSplit> {
        private static final int VERSION = 1;

        @Override
        public int getVersion() {
            return VERSION;
        }

        @Override
        public byte[] serialize(LogSplit split) throws IOException {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            DataOutputStream out = new DataOutputStream(bytes);
            out.writeByte(split.kind.ordinal());
            out.writeUTF(split.path);
            out.writeLong(split.position);
            return bytes.toByteArray();
        }

        @Override
        public LogSplit deserialize(int version, byte[] serialized) throws IOException {
            DataInputStream in = new DataInputStream(new ByteArrayInputStream(serialized));
            return new LogSplit(Event.Kind.values()[in.readByte()], in.readUTF(), in.readLong());
        }
    }
}
