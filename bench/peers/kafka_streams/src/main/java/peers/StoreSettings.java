package peers;

import java.util.Map;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.rocksdb.Options;

/**
 * RocksDB's settings over those of Kafka Streams, which bring Bloom filters of the files: filters of
 * the memtables too, since most ids that are asked for are in none of them.
 */
public final class StoreSettings implements RocksDBConfigSetter {
    private static final double SHARE_OF_MEMTABLE = 0.1;

    @Override
    public void setConfig(String store, Options options, Map<String, Object> settings) {
        options.setMemtableWholeKeyFiltering(true);
        options.setMemtablePrefixBloomSizeRatio(SHARE_OF_MEMTABLE);
    }

    @Override
    public void close(String store, Options options) {}
}
