import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.TestOutputTopic;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.SessionStore;
import org.apache.kafka.streams.state.WindowStore;
import org.apache.kafka.streams.test.TestRecord;

/**
 * Runs topologies of Kafka Streams over records from standard input, and prints what comes
 * out of each. Commands, one a line, their words separated by tabs:
 *
 *   begin NAME PARAMETER...    a topology, see build; times are in ms
 *   record TOPIC KEY VALUE TIME    prints a line "KEY VALUE TIME" for each result, then "."
 *   end
 *
 * \N stands for null.
 */
public class Streams {
    static final Serde<String> STRING = Serdes.String();

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        TopologyTestDriver driver = null;
        TestOutputTopic<String, String> results = null;
        for (String line; (line = in.readLine()) != null; ) {
            String[] words = line.split("\t", -1);
            switch (words[0]) {
                case "begin":
                    driver = new TopologyTestDriver(build(words).build(), properties());
                    results = driver.createOutputTopic("out", new StringDeserializer(), new StringDeserializer());
                    break;
                case "record":
                    driver.createInputTopic(words[1], new StringSerializer(), new StringSerializer())
                        .pipeInput(new TestRecord<>(nullable(words[2]), nullable(words[3]), null, Long.parseLong(words[4])));
                    while (!results.isEmpty()) {
                        TestRecord<String, String> r = results.readRecord();
                        out.println(printable(r.key()) + "\t" + printable(r.value()) + "\t" + r.timestamp());
                    }
                    out.println(".");
                    break;
                case "end":
                    driver.close();
                    out.flush();
                    break;
                default:
                    throw new IllegalArgumentException(line);
            }
        }
    }

    static String nullable(String word) {
        return word.equals("\\N") ? null : word;
    }

    static String printable(String word) {
        return word == null ? "\\N" : word;
    }

    static Properties properties() throws Exception {
        Properties p = new Properties();
        p.put("application.id", "compared");
        p.put("bootstrap.servers", "unused:1");
        p.put("statestore.cache.max.bytes", "0");
        p.put("state.dir", Files.createTempDirectory("compared").toString());
        p.put("default.key.serde", Serdes.StringSerde.class.getName());
        p.put("default.value.serde", Serdes.StringSerde.class.getName());
        // Results on close come with the record that closes the window, not now and then.
        p.put("__emit.interval.ms.kstreams.windowed.aggregation__", 0L);
        p.put("__emit.interval.ms.kstreams.outer.join.spurious.results.fix__", 0L);
        return p;
    }

    /** Builds the topology that the words of a "begin" tell of. */
    static StreamsBuilder build(String[] words) {
        StreamsBuilder builder = new StreamsBuilder();
        switch (words[1]) {
            case "time": { // size, advance, grace, mode
                TimeWindows windows = TimeWindows.ofSizeAndGrace(ms(words[2]), ms(words[4])).advanceBy(ms(words[3]));
                write(words[5], builder.<String, String>stream("in").groupByKey().windowedBy(windows).emitStrategy(strategy(words[5]))
                    .aggregate(() -> "", (k, v, a) -> a + v, KEPT));
                break;
            }
            case "sliding": { // difference, grace, mode
                SlidingWindows windows = SlidingWindows.ofTimeDifferenceAndGrace(ms(words[2]), ms(words[3]));
                write(words[4], builder.<String, String>stream("in").groupByKey().windowedBy(windows).emitStrategy(strategy(words[4]))
                    .aggregate(() -> "", (k, v, a) -> a + v, KEPT));
                break;
            }
            case "session": { // gap, grace, mode
                SessionWindows windows = SessionWindows.ofInactivityGapAndGrace(ms(words[2]), ms(words[3]));
                write(words[4], builder.<String, String>stream("in").groupByKey().windowedBy(windows).emitStrategy(strategy(words[4]))
                    .aggregate(() -> "", (k, v, a) -> a + v, (k, a, b) -> a + b,
                        Materialized.<String, String, SessionStore<Bytes, byte[]>>with(STRING, STRING)));
                break;
            }
            case "limit": { // time limit, records
                builder.<String, String>table("in")
                    .suppress(Suppressed.untilTimeLimit(ms(words[2]), Suppressed.BufferConfig.maxRecords(Long.parseLong(words[3])).emitEarlyWhenFull()))
                    .toStream().to("out");
                break;
            }
            case "left-join-streams": { // before, after, grace
                JoinWindows windows = JoinWindows.ofTimeDifferenceAndGrace(ms("0"), ms(words[4])).before(ms(words[2])).after(ms(words[3]));
                builder.<String, String>stream("in")
                    .leftJoin(builder.<String, String>stream("other"), (a, b) -> a + "+" + b, windows).to("out");
                break;
            }
            case "join-tables":
                builder.<String, String>table("in").join(builder.<String, String>table("other"), (a, b) -> a + "+" + b).toStream().to("out");
                break;
            case "left-join-tables":
                builder.<String, String>table("in").leftJoin(builder.<String, String>table("other"), (a, b) -> a + "+" + b).toStream().to("out");
                break;
            case "outer-join-tables":
                builder.<String, String>table("in").outerJoin(builder.<String, String>table("other"), (a, b) -> a + "+" + b).toStream().to("out");
                break;
            case "foreign-key-join": // the foreign key is the first letter of the value
                builder.<String, String>table("in").join(builder.<String, String>table("other"), v -> v.substring(0, 1), (a, b) -> a + "+" + b)
                    .toStream().to("out");
                break;
            case "group-table": // by the first letter of the value, whose length counts
                builder.<String, String>table("in").groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v))
                    .aggregate(() -> "0", (k, v, a) -> "" + (Integer.parseInt(a) + v.length()), (k, v, a) -> "" + (Integer.parseInt(a) - v.length()),
                        Materialized.<String, String, KeyValueStore<Bytes, byte[]>>with(STRING, STRING))
                    .toStream().to("out");
                break;
            default:
                throw new IllegalArgumentException("no topology " + words[1]);
        }
        return builder;
    }

    /**
     * With the retention that it has by default, window size plus grace, Kafka Streams' store
     * takes a window for expired when it closes, and on close there is no result.
     */
    static final Materialized<String, String, WindowStore<Bytes, byte[]>> KEPT =
        Materialized.<String, String, WindowStore<Bytes, byte[]>>with(STRING, STRING).withRetention(Duration.ofHours(1));

    static Duration ms(String word) {
        return Duration.ofMillis(Long.parseLong(word));
    }

    static EmitStrategy strategy(String mode) {
        return mode.equals("close") ? EmitStrategy.onWindowClose() : EmitStrategy.onWindowUpdate();
    }

    /** Writes a windowed table; mode is update, close or suppress. */
    static void write(String mode, KTable<Windowed<String>, String> table) {
        if (mode.equals("suppress")) {
            table = table.suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()));
        }
        table.toStream((k, v) -> k.key() + "[" + k.window().start() + "," + k.window().end() + "]").to("out");
    }
}
