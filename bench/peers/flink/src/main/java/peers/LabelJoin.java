package peers;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.java.tuple.Tuple4;
import org.apache.flink.streaming.api.TimerService;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * Keyed by impression id; everything is decided in event-time timers, so that the labels do not
 * depend on the order of arrival. One value holds all that is known of an impression: a store over
 * RocksDB is asked once when it comes (is it a duplicate?), and once when its timer fires.
 */
final class LabelJoin
        extends KeyedProcessFunction<String, Tuple4<Byte, Long, String, byte[]>, Sample>
        implements LabelRule.Actions {
    private static final Event.Kind[] KINDS = Event.Kind.values();

    private final long clickWindowMs;
    private final long conversionWindowMs;
    private transient LabelRule rule;
    private transient ValueState<byte[]> state;
    private transient Labels labels;
    private transient Event event;
    private transient Sample sample;
    private transient TimerService timers;
    private transient Collector<Sample> output;
    private transient long openNow;
    private transient long mostOpen;

    LabelJoin(long clickWindowMs, long conversionWindowMs) {
        this.clickWindowMs = clickWindowMs;
        this.conversionWindowMs = conversionWindowMs;
    }

    @Override
    public void open(OpenContext context) {
        rule = new LabelRule(clickWindowMs, conversionWindowMs);
        state = getRuntimeContext().getState(new ValueStateDescriptor<>(
                "open", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO));
        labels = Run.current().labels;
        event = new Event();
        sample = new Sample();
    }

    @Override
    public void processElement(Tuple4<Byte, Long, String, byte[]> element, Context context,
            Collector<Sample> collector) throws Exception {
        timers = context.timerService();
        output = collector;
        if (element.f1 <= timers.currentWatermark()) {
            labels.late.increment();
            return;
        }
        event.kind = KINDS[element.f0];
        event.time = element.f1;
        event.payload = element.f3;
        byte[] encoded = state.value();
        OpenImpression open =
                encoded == null ? new OpenImpression() : OpenImpression.decode(encoded);
        boolean wasSeen = open.seen;
        rule.onEvent(open, event, this);
        if (open.seen && !wasSeen) {
            mostOpen = Math.max(mostOpen, ++openNow);
        }
        state.update(open.encode());
    }

    @Override
    public void onTimer(long time, OnTimerContext context, Collector<Sample> collector)
            throws Exception {
        timers = context.timerService();
        output = collector;
        byte[] encoded = state.value();
        if (encoded == null) {
            return;
        }
        OpenImpression open = OpenImpression.decode(encoded);
        if (rule.onTime(open, time, this)) {
            state.clear();
            openNow -= open.seen ? 1 : 0;
        } else {
            state.update(open.encode());
        }
    }

    @Override
    public void callAt(long time) {
        timers.registerEventTimeTimer(time);
    }

    @Override
    public void sample(OpenImpression open, boolean clicked, boolean converted) {
        collect(open, false, clicked, converted);
    }

    @Override
    public void secondSample(OpenImpression open, boolean converted) {
        collect(open, true, true, converted);
    }

    @Override
    public void discard() {
        labels.discarded.increment();
    }

    private void collect(OpenImpression open, boolean second, boolean clicked, boolean converted) {
        sample.payload = open.payload;
        sample.second = second;
        sample.clicked = clicked;
        sample.converted = converted;
        output.collect(sample);
    }

    @Override
    public void close() {
        if (labels != null) {
            labels.mostOpen.add(mostOpen);
        }
        mostOpen = 0;
    }
}
