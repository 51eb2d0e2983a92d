package peers;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;

/**
 * Wall and processor time of this process from the first record read to the last one processed: the
 * start of the virtual machine and of the engine lies before, its shutdown after.
 */
public final class Stopwatch {
    private long startNs;
    private long endNs;
    private long startCpuNs;
    private long endCpuNs;
    private long sinceJvmStartMs;

    /** Called with every first record of a reader; the earliest counts. */
    public synchronized void start() {
        if (startNs != 0) {
            return;
        }
        startNs = System.nanoTime();
        startCpuNs = cpuNs();
        sinceJvmStartMs = ManagementFactory.getRuntimeMXBean().getUptime();
    }

    /** Called by every thread that has processed its last record; the latest counts. */
    public synchronized void stop() {
        endNs = System.nanoTime();
        endCpuNs = cpuNs();
    }

    /** One line of JSON for joiner_peers.py. */
    public synchronized String report(Labels labels) {
        return String.format(java.util.Locale.ROOT,
                "{\"events\": %d, \"impressions\": %d, \"y\": %d, \"z\": %d, \"samples\": %d, "
                + "\"payload_bytes\": %d, \"discarded\": %d, \"late\": %d, \"open\": %d, "
                + "\"seconds\": %.3f, \"cpu_s\": %.3f, \"until_first_record_s\": %.3f}",
                labels.events.sum(), labels.impressions.sum(), labels.clicked.sum(),
                labels.converted.sum(), labels.samples.sum(), labels.payloadBytes.sum(),
                labels.discarded.sum(), labels.late.sum(), labels.mostOpen.sum(),
                (endNs - startNs) / 1e9, (endCpuNs - startCpuNs) / 1e9, sinceJvmStartMs / 1e3);
    }

    private static long cpuNs() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
                .getProcessCpuTime();
    }
}
