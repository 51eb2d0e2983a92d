package peers;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.stream.Stream;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeHint;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.java.tuple.Tuple4;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * The label join as a job of Flink on a mini cluster in this process; prints one line of JSON a
 * run.
 *
 * <pre>
 *   --logs ROOT             ROOT/TOPIC/PARTITION.jsonl
 *   --topics I,C,P          the topics of impressions, clicks and purchases
 *   --work DIR              for RocksDB and checkpoints; must be there
 *   --slots N               parallelism
 *   --repeat N              runs in this process: the first one warms it
 *   --click-window-ms N
 *   --conversion-window-ms N
 *   --out-of-orderness-ms N
 *   --set KEY=VALUE,...     settings of Flink, over those below
 * </pre>
 */
public final class FlinkJoin {
    /** How far a partition may be read ahead of the slowest, in event time: bounds what waits. */
    private static final Duration MOST_AHEAD = Duration.ofMinutes(10);
    private static final Duration ALIGN_EVERY = Duration.ofMillis(200);

    private FlinkJoin() {}

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        for (int left = options.number("repeat"); left > 0; --left) {
            Run run = Run.begin();
            execute(options);
            System.out.println(run.stopwatch.report(run.labels));
        }
        System.exit(0);  // threads of the mini cluster may linger
    }

    private static void execute(Options options) throws Exception {
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(
                options.number("slots"), settings(options));
        WatermarkStrategy<Tuple4<Byte, Long, String, byte[]>> watermarks =
                WatermarkStrategy.<Tuple4<Byte, Long, String, byte[]>>forBoundedOutOfOrderness(
                                Duration.ofMillis(options.milliseconds("out-of-orderness-ms")))
                        .withWatermarkAlignment("logs", MOST_AHEAD, ALIGN_EVERY);
        environment
                .fromSource(new LogSource(paths(options)), watermarks, "logs",
                        TypeInformation.of(new TypeHint<Tuple4<Byte, Long, String, byte[]>>() {}))
                .keyBy(event -> event.f2)
                .process(new LabelJoin(options.milliseconds("click-window-ms"),
                        options.milliseconds("conversion-window-ms")),
                        TypeInformation.of(Sample.class))
                .sinkTo(new CountingSink());
        environment.execute("label join");
    }

    private static Configuration settings(Options options) {
        Configuration settings = new Configuration();
        String work = options.text("work");
        settings.setString("execution.checkpointing.interval", "10 s");
        settings.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
        settings.setString("execution.checkpointing.incremental", "true");
        settings.setString("execution.checkpointing.dir", "file://" + work + "/checkpoints");
        settings.setString("state.backend.type", "rocksdb");
        // Timers are in RocksDB too, as is the default: what is open may outgrow the memory.
        settings.setString("state.backend.rocksdb.localdir", work + "/rocksdb");
        settings.setString("state.backend.rocksdb.use-bloom-filter", "true");
        settings.setString("io.tmp.dirs", work + "/tmp");
        settings.setString("taskmanager.memory.managed.size", "1 gb");
        settings.setString("taskmanager.memory.network.min", "64 mb");
        settings.setString("taskmanager.memory.network.max", "64 mb");
        settings.setString("pipeline.object-reuse", "true");
        settings.setString("pipeline.generic-types", "false");  // no Kryo anywhere
        for (String each : options.text("set", "").split(",")) {
            if (!each.isEmpty()) {
                String[] pair = each.split("=", 2);
                settings.setString(pair[0], pair[1]);
            }
        }
        return settings;
    }

    private static String[][] paths(Options options) throws IOException {
        String[] topics = options.text("topics").split(",");
        String[][] paths = new String[topics.length][];
        for (int index = 0; index < topics.length; ++index) {
            Path folder = Path.of(options.text("logs"), topics[index]).toAbsolutePath();
            try (Stream<Path> files = Files.list(folder)) {
                paths[index] = files.map(Path::toString).filter(name -> name.endsWith(".jsonl"))
                        .sorted().toArray(String[]::new);
            }
        }
        return paths;
    }
}
