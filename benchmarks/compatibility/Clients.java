import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.regex.Pattern;

import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.serialization.*;

/**
 * Puts Apache Kafka's Java producer, consumer, admin and transactional clients to work on a
 * cluster, case by case, and says of each whether it did what its documentation promises.
 * The cases are the same for Leat and for Apache Kafka.
 *
 *   java -cp 'FOLDER_OF_JARS/*' Clients.java HOST:PORT [PATTERN]
 *
 * A line for each case: "pass NAME", or "fail NAME -- WHY". PATTERN is a regular expression for
 * the names of those to run. The exit status is the number of failures.
 */
public class Clients {
    static String bootstrap;
    static Admin admin;
    static final Duration TICK = Duration.ofMillis(100);
    static final long CASE_SECONDS = 60;
    static final String RUN = Long.toString(System.nanoTime(), 36);
    static int names;

    interface Case { void run() throws Exception; }

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        Pattern wanted = Pattern.compile(args.length > 1 ? args[1] : ".");
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        Map<String, Case> cases = new LinkedHashMap<>();
        producerCases(cases);
        for (String protocol : List.of("classic", "consumer")) consumerCases(cases, protocol);
        transactionCases(cases);
        adminCases(cases);
        int failed = 0;
        ExecutorService runner = Executors.newCachedThreadPool(r -> { Thread t = new Thread(r); t.setDaemon(true); return t; });
        for (Map.Entry<String, Case> c : cases.entrySet()) {
            if (!wanted.matcher(c.getKey()).find()) continue;
            Future<?> run = runner.submit((Callable<Void>) () -> { c.getValue().run(); return null; });
            try {
                run.get(CASE_SECONDS, TimeUnit.SECONDS);
                System.out.println("pass " + c.getKey());
            } catch (ExecutionException e) {
                failed++;
                StackTraceElement at = Arrays.stream(e.getCause().getStackTrace()).filter(f -> f.getClassName().startsWith("Clients")).findFirst().orElse(null);
                System.out.println("fail " + c.getKey() + " -- " + e.getCause() + (at == null ? "" : " (line " + at.getLineNumber() + ")"));
            } catch (java.util.concurrent.TimeoutException e) {
                failed++;
                run.cancel(true);
                System.out.println("fail " + c.getKey() + " -- not done after " + CASE_SECONDS + " s");
            }
        }
        admin.close();
        System.exit(failed);
    }

    // What cases are made of.

    static synchronized String name(String what) { return "java-" + RUN + "-" + what + "-" + names++; }

    static String topic(int partitions, String... config) throws Exception {
        String t = name("topic");
        Map<String, String> configs = new HashMap<>();
        for (int i = 0; i < config.length; i += 2) configs.put(config[i], config[i + 1]);
        admin.createTopics(List.of(new NewTopic(t, partitions, (short) 1).configs(configs))).all().get();
        // Other nodes may learn of it later than the one that answered.
        until("topic " + t + " is known", () -> {
            try {
                return admin.describeTopics(List.of(t)).allTopicNames().get().get(t).partitions().stream().noneMatch(p -> p.leader() == null);
            } catch (Exception e) {
                return false;
            }
        });
        return t;
    }

    // known asks until the node that is asked has heard of a topic: each time it may be another.
    static <T> T known(Callable<T> ask) throws Exception {
        for (long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(CASE_SECONDS - 5); ; Thread.sleep(20)) {
            try {
                return ask.call();
            } catch (ExecutionException e) {
                boolean later = e.getCause() instanceof UnknownTopicOrPartitionException || e.getCause() instanceof UnknownTopicIdException;
                if (!later || System.nanoTime() > end) throw e;
            }
        }
    }

    static void until(String what, BooleanSupplier is) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(CASE_SECONDS - 5);
        while (!is.getAsBoolean()) {
            if (System.nanoTime() > end) throw new AssertionError("not in time: " + what);
            Thread.sleep(20);
        }
    }

    static void equal(Object got, Object want) {
        if (!want.equals(got)) throw new AssertionError("got " + got + ", want " + want);
    }

    static void check(boolean is, String what) {
        if (!is) throw new AssertionError(what);
    }

    /** Runs something that must fail with an exception of a class, or one caused by it. */
    static Throwable fails(Class<? extends Throwable> with, Case c) throws Exception {
        try {
            c.run();
        } catch (Throwable e) {
            for (Throwable t = e; t != null; t = t.getCause()) if (with.isInstance(t)) return t;
            throw new AssertionError("failed with " + e + ", want " + with.getSimpleName(), e);
        }
        throw new AssertionError("did not fail, want " + with.getSimpleName());
    }

    static KafkaProducer<String, String> producer(String... config) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        for (int i = 0; i < config.length; i += 2) p.put(config[i], config[i + 1]);
        return new KafkaProducer<>(p, new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(String protocol, String group, String... config) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("auto.offset.reset", "earliest");
        p.put("enable.auto.commit", "false");
        if (group != null) p.put("group.id", group);
        if (protocol != null) p.put("group.protocol", protocol);
        if ("classic".equals(protocol)) p.put("heartbeat.interval.ms", "300");
        for (int i = 0; i < config.length; i += 2) p.put(config[i], config[i + 1]);
        return new KafkaConsumer<>(p, new StringDeserializer(), new StringDeserializer());
    }

    static void fill(String topic, int partition, String... values) throws Exception {
        try (var p = producer()) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String v : values) sent.add(p.send(new ProducerRecord<>(topic, partition, "k", v)));
            for (var s : sent) s.get();
        }
    }

    /** Polls until so many records are there, and once more. */
    static List<ConsumerRecord<String, String>> poll(Consumer<String, String> c, int n) throws Exception {
        List<ConsumerRecord<String, String>> all = new ArrayList<>();
        until(n + " records", () -> {
            c.poll(TICK).forEach(all::add);
            return all.size() >= n;
        });
        c.poll(TICK).forEach(all::add);
        return all;
    }

    static List<String> values(List<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).toList();
    }

    static List<String> read(String topic, int partition, String isolation, int n) throws Exception {
        try (var c = consumer(null, null, "isolation.level", isolation)) {
            c.assign(List.of(new TopicPartition(topic, partition)));
            return values(poll(c, n));
        }
    }

    static TopicPartition at(String topic, int partition) { return new TopicPartition(topic, partition); }

    // The producer.

    static void producerCases(Map<String, Case> cases) {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            cases.put("producer: 5,000 records in order, " + codec, () -> {
                String t = topic(3);
                Map<Integer, List<String>> sent = new HashMap<>();
                try (var p = producer("compression.type", codec, "linger.ms", "5")) {
                    for (int i = 0; i < 5000; i++) {
                        sent.computeIfAbsent(i % 3, x -> new ArrayList<>()).add("value " + i);
                        p.send(new ProducerRecord<>(t, i % 3, "key", "value " + i));
                    }
                }
                for (int i = 0; i < 3; i++) equal(read(t, i, "read_uncommitted", sent.get(i).size()), sent.get(i));
            });
        }
        for (String acks : List.of("0", "1")) {
            cases.put("producer: acks=" + acks, () -> {
                String t = topic(1);
                try (var p = producer("acks", acks, "enable.idempotence", "false")) {
                    RecordMetadata m = p.send(new ProducerRecord<>(t, "v")).get();
                    equal(m.hasOffset(), acks.equals("1"));
                }
                equal(read(t, 0, "read_uncommitted", 1), List.of("v"));
            });
        }
        cases.put("producer: headers, nulls and timestamps", () -> {
            String t = topic(1);
            try (var p = producer()) {
                p.send(new ProducerRecord<>(t, 0, 12345L, null, "v", List.of(new RecordHeader("a", new byte[] {1}), new RecordHeader("b", (byte[]) null)))).get();
                p.send(new ProducerRecord<>(t, 0, "k", null)).get();
            }
            try (var c = consumer(null, null)) {
                c.assign(List.of(at(t, 0)));
                var records = poll(c, 2);
                var first = records.get(0);
                equal(first.timestamp(), 12345L);
                check(first.key() == null && records.get(1).value() == null, "nulls are null");
                equal(first.headers().toArray().length, 2);
                equal(first.headers().lastHeader("a").value()[0], (byte) 1);
                check(first.headers().lastHeader("b").value() == null, "a header is null");
                equal(first.leaderEpoch().isPresent(), true);
            }
        });
        cases.put("producer: append time", () -> {
            String t = topic(1, "message.timestamp.type", "LogAppendTime");
            try (var p = producer()) {
                long now = System.currentTimeMillis();
                RecordMetadata m = p.send(new ProducerRecord<>(t, 0, 12345L, "k", "v")).get();
                check(Math.abs(m.timestamp() - now) < 60_000, "timestamp " + m.timestamp());
            }
        });
        cases.put("producer: keys choose partitions as murmur2", () -> {
            String t = topic(7);
            try (var p = producer()) {
                for (String key : List.of("21", "foobar", "a-little-bit-long-string", "k", "Ü")) {
                    int want = (org.apache.kafka.common.utils.Utils.murmur2(key.getBytes("UTF-8")) & 0x7fffffff) % 7;
                    equal(p.send(new ProducerRecord<>(t, key, "v")).get().partition(), want);
                }
                equal(p.partitionsFor(t).size(), 7);
            }
        });
        cases.put("producer: a record that is too large for the topic", () -> {
            String t = topic(1, "max.message.bytes", "2000");
            try (var p = producer()) {
                fails(RecordTooLargeException.class, () -> p.send(new ProducerRecord<>(t, "x".repeat(3000))).get());
                p.send(new ProducerRecord<>(t, "small")).get();
            }
            equal(read(t, 0, "read_uncommitted", 1), List.of("small"));
        });
        cases.put("producer: a timestamp that is too far from now", () -> {
            String t = topic(1, "message.timestamp.after.max.ms", "1000");
            try (var p = producer()) {
                fails(InvalidTimestampException.class, () -> p.send(new ProducerRecord<>(t, 0, System.currentTimeMillis() + 3_600_000, "k", "v")).get());
            }
        });
        cases.put("producer: a name that is not allowed", () -> {
            try (var p = producer("max.block.ms", "5000")) {
                fails(InvalidTopicException.class, () -> p.send(new ProducerRecord<>("no/name", "v")).get());
            }
        });
        cases.put("producer: a record without a key for a compacted topic", () -> {
            String t = topic(1, "cleanup.policy", "compact");
            try (var p = producer()) {
                fails(InvalidRecordException.class, () -> p.send(new ProducerRecord<>(t, "v")).get());
            }
        });
        cases.put("producer: the broker creates the topic", () -> {
            String t = name("created");
            try (var p = producer()) {
                equal(p.send(new ProducerRecord<>(t, "v")).get().offset(), 0L);
            }
        });
    }

    // The consumer, with either group protocol.

    static void consumerCases(Map<String, Case> cases, String protocol) {
        String of = "consumer (" + protocol + "): ";
        cases.put(of + "subscribe, commit, go on", () -> {
            String t = topic(1), g = name("group");
            fill(t, 0, "a", "b", "c", "d");
            try (var c = consumer(protocol, g, "max.poll.records", "2")) {
                c.subscribe(List.of(t));
                poll(c, 2);
                c.commitSync(Map.of(at(t, 0), new OffsetAndMetadata(2, Optional.empty(), "note")));
                var committed = c.committed(Set.of(at(t, 0))).get(at(t, 0));
                equal(committed.offset(), 2L);
                equal(committed.metadata(), "note");
                equal(c.groupMetadata().groupId(), g);
            }
            try (var c = consumer(protocol, g)) {
                c.subscribe(List.of(t));
                equal(values(poll(c, 2)), List.of("c", "d"));
                equal(c.position(at(t, 0)), 4L);
                equal(c.currentLag(at(t, 0)).getAsLong(), 0L);
            }
        });
        cases.put(of + "commits asynchronously, and automatically when it closes", () -> {
            String t = topic(1), g = name("group");
            fill(t, 0, "a", "b", "c");
            try (var c = consumer(protocol, g, "max.poll.records", "1")) {
                c.subscribe(List.of(t));
                until("a record", () -> c.poll(TICK).count() > 0);
                boolean[] done = {false};
                c.commitAsync(Map.of(at(t, 0), new OffsetAndMetadata(1)), (offsets, e) -> done[0] = e == null);
                until("the callback", () -> { c.poll(Duration.ZERO); return done[0]; });
            }
            try (var c = consumer(protocol, g, "enable.auto.commit", "true")) {
                c.subscribe(List.of(t));
                equal(values(poll(c, 2)), List.of("b", "c"));
            }
            equal(admin.listConsumerGroupOffsets(g).partitionsToOffsetAndMetadata().get().get(at(t, 0)).offset(), 3L);
        });
        cases.put(of + "members share partitions, and take those of one that leaves", () -> shareAndLeave(protocol));
        // In the consumer protocol the session is the broker's setting, of 45 s.
        if (protocol.equals("classic")) cases.put(of + "a member that is silent loses its partitions", () -> {
            String t = topic(2), g = name("group");
            var silent = consumer(protocol, g, "session.timeout.ms", "6000", "max.poll.interval.ms", "1000");
            try (var c = consumer(protocol, g)) {
                silent.subscribe(List.of(t));
                until("an assignment", () -> { silent.poll(TICK); return silent.assignment().size() == 2; });
                c.subscribe(List.of(t));
                until("all partitions", () -> { c.poll(TICK); return c.assignment().size() == 2; });
                fails(CommitFailedException.class, () -> silent.commitSync(Map.of(at(t, 0), new OffsetAndMetadata(0))));
            } finally {
                silent.close(CloseOptions.timeout(Duration.ofSeconds(1)));
            }
        });
        cases.put(of + "a static member keeps its partitions over a restart; a second one fences", () -> staticMembers(protocol));
        cases.put(of + "subscribe by a pattern, topics come later", () -> {
            String prefix = name("pattern"), g = name("group");
            admin.createTopics(List.of(new NewTopic(prefix + "-a", 1, (short) 1))).all().get();
            try (var c = consumer(protocol, g, "metadata.max.age.ms", "500")) {
                if (protocol.equals("consumer")) c.subscribe(new SubscriptionPattern(prefix + "-.*"));
                else c.subscribe(Pattern.compile(prefix + "-.*"));
                until("the first", () -> { c.poll(TICK); return c.assignment().size() == 1; });
                admin.createTopics(List.of(new NewTopic(prefix + "-b", 2, (short) 1))).all().get();
                until("the second", () -> { c.poll(TICK); return c.assignment().size() == 3; });
            }
        });
        cases.put(of + "new partitions are assigned", () -> {
            String t = topic(1), g = name("group");
            try (var c = consumer(protocol, g, "metadata.max.age.ms", "500")) {
                c.subscribe(List.of(t));
                until("one", () -> { c.poll(TICK); return c.assignment().size() == 1; });
                admin.createPartitions(Map.of(t, NewPartitions.increaseTo(3))).all().get();
                until("three", () -> { c.poll(TICK); return c.assignment().size() == 3; });
            }
        });
        cases.put(of + "no offset and auto.offset.reset=none, latest, by_duration", () -> {
            String t = topic(1);
            fill(t, 0, "old");
            try (var c = consumer(protocol, name("group"), "auto.offset.reset", "none")) {
                c.subscribe(List.of(t));
                fails(NoOffsetForPartitionException.class, () -> until("never", () -> { c.poll(TICK); return false; }));
            }
            try (var c = consumer(protocol, name("group"), "auto.offset.reset", "latest")) {
                c.subscribe(List.of(t));
                until("an assignment", () -> { c.poll(TICK); return !c.assignment().isEmpty(); });
                equal(c.position(at(t, 0)), 1L);
            }
            try (var c = consumer(protocol, name("group"), "auto.offset.reset", "by_duration:PT1H")) {
                c.subscribe(List.of(t));
                equal(values(poll(c, 1)), List.of("old"));
            }
        });
        cases.put(of + "commit to a topic that is deleted", () -> {
            String t = topic(1), g = name("group");
            fill(t, 0, "a");
            try (var c = consumer(protocol, g)) {
                c.subscribe(List.of(t));
                poll(c, 1);
                c.commitSync();
            }
            admin.deleteTopics(List.of(t)).all().get();
            until("its offsets are gone", () -> {
                try {
                    return admin.listConsumerGroupOffsets(g).partitionsToOffsetAndMetadata().get().isEmpty();
                } catch (Exception e) {
                    return e.getCause() instanceof GroupIdNotFoundException;
                }
            });
        });
        if (protocol.equals("classic")) {
            assignCases(cases);
            for (var assignor : List.of(RangeAssignor.class, RoundRobinAssignor.class, StickyAssignor.class, CooperativeStickyAssignor.class))
                cases.put(of + assignor.getSimpleName(), () -> shareAndLeave(protocol, "partition.assignment.strategy", assignor.getName()));
        } else {
            for (String assignor : List.of("uniform", "range"))
                cases.put(of + "assignor " + assignor, () -> shareAndLeave(protocol, "group.remote.assignor", assignor));
            cases.put(of + "a classic group is upgraded while it works, and downgraded", Clients::upgrade);
        }
    }

    static void shareAndLeave(String protocol, String... config) throws Exception {
        String t = topic(4), g = name("group");
        Set<TopicPartition> revoked = Collections.synchronizedSet(new HashSet<>());
        try (var a = consumer(protocol, g, config)) {
            a.subscribe(List.of(t), new ConsumerRebalanceListener() {
                public void onPartitionsRevoked(Collection<TopicPartition> p) { revoked.addAll(p); }
                public void onPartitionsAssigned(Collection<TopicPartition> p) { }
            });
            until("all for one", () -> { a.poll(TICK); return a.assignment().size() == 4; });
            try (var b = consumer(protocol, g, config)) {
                b.subscribe(List.of(t));
                until("half for each", () -> { a.poll(TICK); b.poll(TICK); return a.assignment().size() == 2 && b.assignment().size() == 2; });
                Set<TopicPartition> both = new HashSet<>(a.assignment());
                both.addAll(b.assignment());
                equal(both.size(), 4);
                check(revoked.containsAll(b.assignment()), "what went over was revoked: " + revoked);
                fill(t, 0, "a");
                fill(t, 3, "b");
                Set<String> got = new HashSet<>();
                until("both records", () -> {
                    a.poll(TICK).forEach(r -> got.add(r.value()));
                    b.poll(TICK).forEach(r -> got.add(r.value()));
                    return got.size() == 2;
                });
            }
            until("all for the one that is left", () -> { a.poll(TICK); return a.assignment().size() == 4; });
        }
    }

    static void staticMembers(String protocol) throws Exception {
        String t = topic(2), g = name("group");
        try (var other = consumer(protocol, g, "group.instance.id", "other")) {
            var one = consumer(protocol, g, "group.instance.id", "one");
            other.subscribe(List.of(t));
            one.subscribe(List.of(t));
            until("one each", () -> { one.poll(TICK); other.poll(TICK); return one.assignment().size() == 1 && other.assignment().size() == 1; });
            Set<TopicPartition> had = one.assignment();
            one.close();
            for (int i = 0; i < 10; i++) other.poll(TICK);
            equal(other.assignment().size(), 1);
            var again = consumer(protocol, g, "group.instance.id", "one");
            again.subscribe(List.of(t));
            until("the same again", () -> { again.poll(TICK); other.poll(TICK); return again.assignment().equals(had); });
            try (var twin = consumer(protocol, g, "group.instance.id", "one")) {
                twin.subscribe(List.of(t));
                // Classic groups fence the one that was there, those of the consumer protocol the one that comes.
                Class<? extends Throwable> with = protocol.equals("classic") ? FencedInstanceIdException.class : UnreleasedInstanceIdException.class;
                fails(with, () -> until("never", () -> { twin.poll(TICK); again.poll(TICK); other.poll(TICK); return false; }));
            } finally {
                again.close(CloseOptions.timeout(Duration.ofSeconds(1)));
            }
        }
    }

    static void upgrade() throws Exception {
        String t = topic(2), g = name("group");
        var old = consumer("classic", g);
        try (var next = consumer("consumer", g)) {
            old.subscribe(List.of(t));
            until("all", () -> { old.poll(TICK); return old.assignment().size() == 2; });
            next.subscribe(List.of(t));
            until("one each", () -> { old.poll(TICK); next.poll(TICK); return old.assignment().size() == 1 && next.assignment().size() == 1; });
            equal(admin.describeConsumerGroups(List.of(g)).all().get().get(g).type(), GroupType.CONSUMER);
            next.close();
            until("all again", () -> { old.poll(TICK); return old.assignment().size() == 2; });
            equal(admin.describeConsumerGroups(List.of(g)).all().get().get(g).type(), GroupType.CLASSIC);
        } finally {
            old.close();
        }
    }

    // The consumer without a group.

    static void assignCases(Map<String, Case> cases) {
        cases.put("consumer: seek, positions and offsets", () -> {
            String t = topic(2);
            fill(t, 0, "a", "b", "c");
            var p = at(t, 0);
            try (var c = consumer(null, null)) {
                c.assign(List.of(p, at(t, 1)));
                c.seek(p, 1);
                equal(values(poll(c, 2)), List.of("b", "c"));
                c.seekToBeginning(List.of(p));
                equal(c.position(p), 0L);
                c.seekToEnd(List.of(p));
                equal(c.position(p), 3L);
                equal(c.beginningOffsets(List.of(p, at(t, 1))), Map.of(p, 0L, at(t, 1), 0L));
                equal(c.endOffsets(List.of(p, at(t, 1))), Map.of(p, 3L, at(t, 1), 0L));
                equal(c.partitionsFor(t).size(), 2);
                check(c.listTopics().containsKey(t), "the topic is listed");
            }
        });
        cases.put("consumer: offsets by time", () -> {
            String t = topic(1);
            long now = System.currentTimeMillis();
            try (var p = producer()) {
                for (int i = 0; i < 10; i++) p.send(new ProducerRecord<>(t, 0, now + i * 1000L, "k", "v" + i)).get();
            }
            try (var c = consumer(null, null)) {
                var found = c.offsetsForTimes(Map.of(at(t, 0), now + 4500)).get(at(t, 0));
                equal(found.offset(), 5L);
                equal(found.timestamp(), now + 5000);
                check(c.offsetsForTimes(Map.of(at(t, 0), now + 60_000)).get(at(t, 0)) == null, "nothing that late");
            }
        });
        cases.put("consumer: pause and resume", () -> {
            String t = topic(2);
            fill(t, 0, "a");
            fill(t, 1, "b");
            try (var c = consumer(null, null)) {
                c.assign(List.of(at(t, 0), at(t, 1)));
                c.pause(List.of(at(t, 0)));
                equal(values(poll(c, 1)), List.of("b"));
                c.resume(List.of(at(t, 0)));
                equal(values(poll(c, 1)), List.of("a"));
            }
        });
        cases.put("consumer: an offset out of range", () -> {
            String t = topic(1);
            fill(t, 0, "a", "b", "c");
            admin.deleteRecords(Map.of(at(t, 0), RecordsToDelete.beforeOffset(2))).all().get();
            try (var c = consumer(null, null, "auto.offset.reset", "none")) {
                c.assign(List.of(at(t, 0)));
                c.seek(at(t, 0), 1);
                fails(org.apache.kafka.clients.consumer.OffsetOutOfRangeException.class, () -> until("never", () -> { c.poll(TICK); return false; }));
            }
            try (var c = consumer(null, null)) {
                c.assign(List.of(at(t, 0)));
                c.seek(at(t, 0), 1);
                equal(values(poll(c, 1)), List.of("c"));
            }
        });
        cases.put("consumer: a record larger than the fetch", () -> {
            String t = topic(1);
            fill(t, 0, "x".repeat(300_000), "y".repeat(300_000), "z");
            try (var c = consumer(null, null, "max.partition.fetch.bytes", "1000", "fetch.max.bytes", "1000")) {
                c.assign(List.of(at(t, 0)));
                equal(poll(c, 3).stream().map(r -> r.value().length()).toList(), List.of(300_000, 300_000, 1));
            }
        });
        cases.put("consumer: waits for fetch.min.bytes", () -> {
            String t = topic(1);
            fill(t, 0, "a");
            try (var c = consumer(null, null, "fetch.min.bytes", "100000", "fetch.max.wait.ms", "700")) {
                c.assign(List.of(at(t, 0)));
                long start = System.nanoTime();
                equal(values(poll(c, 1)), List.of("a"));
                check(System.nanoTime() - start > TimeUnit.MILLISECONDS.toNanos(600), "it did not wait");
            }
        });
        cases.put("consumer: a deleted topic made anew is another one", () -> {
            String t = topic(1);
            fill(t, 0, "a");
            try (var c = consumer(null, null, "metadata.max.age.ms", "500")) {
                c.assign(List.of(at(t, 0)));
                poll(c, 1);
                admin.deleteTopics(List.of(t)).all().get();
                until("it can be made anew", () -> {
                    try {
                        admin.createTopics(List.of(new NewTopic(t, 1, (short) 1))).all().get();
                        return true;
                    } catch (Exception e) {
                        return false;
                    }
                });
                fill(t, 0, "new");
                c.seekToBeginning(List.of(at(t, 0)));
                equal(values(poll(c, 1)), List.of("new"));
            }
        });
        cases.put("consumer: a topic that does not exist is not created", () -> {
            String t = name("absent");
            try (var c = consumer(null, null, "allow.auto.create.topics", "false", "default.api.timeout.ms", "2000")) {
                c.assign(List.of(at(t, 0)));
                c.poll(TICK);
                check(!admin.listTopics().names().get().contains(t), "it was created");
            }
        });
    }

    // Transactions.

    static KafkaProducer<String, String> transactional(String id, String... config) {
        String[] all = Arrays.copyOf(config, config.length + 2);
        all[config.length] = "transactional.id";
        all[config.length + 1] = id;
        var p = producer(all);
        p.initTransactions();
        return p;
    }

    static void transactionCases(Map<String, Case> cases) {
        cases.put("transactions: committed is read, aborted is not", () -> {
            String t = topic(2);
            try (var p = transactional(name("txn"))) {
                for (int i = 0; i < 6; i++) {
                    p.beginTransaction();
                    p.send(new ProducerRecord<>(t, 0, "k", "v" + i));
                    p.send(new ProducerRecord<>(t, 1, "k", "w" + i));
                    if (i % 2 == 0) p.commitTransaction(); else p.abortTransaction();
                }
            }
            equal(read(t, 0, "read_committed", 3), List.of("v0", "v2", "v4"));
            equal(read(t, 1, "read_committed", 3), List.of("w0", "w2", "w4"));
        });
        cases.put("transactions: 100 in a row", () -> {
            String t = topic(3);
            List<String> sent = new ArrayList<>();
            try (var p = transactional(name("txn"))) {
                for (int i = 0; i < 100; i++) {
                    p.beginTransaction();
                    for (int j = 0; j < 3; j++) p.send(new ProducerRecord<>(t, j, "k", "v" + i));
                    sent.add("v" + i);
                    p.commitTransaction();
                }
            }
            equal(read(t, 2, "read_committed", 100), sent);
        });
        cases.put("transactions: what is open is not read, and holds back what follows", () -> {
            String t = topic(1);
            try (var p = transactional(name("txn")); var c = consumer(null, null, "isolation.level", "read_committed")) {
                p.beginTransaction();
                p.send(new ProducerRecord<>(t, 0, "k", "open")).get();
                fill(t, 0, "behind");
                c.assign(List.of(at(t, 0)));
                for (int i = 0; i < 5; i++) equal(c.poll(TICK).count(), 0);
                equal(c.endOffsets(List.of(at(t, 0))), Map.of(at(t, 0), 0L));
                p.commitTransaction();
                equal(values(poll(c, 2)), List.of("open", "behind"));
            }
        });
        cases.put("transactions: empty ones", () -> {
            String t = topic(1);
            try (var p = transactional(name("txn"))) {
                p.beginTransaction();
                p.commitTransaction();
                p.beginTransaction();
                p.abortTransaction();
                p.beginTransaction();
                p.send(new ProducerRecord<>(t, "v"));
                p.commitTransaction();
                p.beginTransaction();
                p.abortTransaction();
            }
            equal(read(t, 0, "read_committed", 1), List.of("v"));
        });
        cases.put("transactions: an abort takes back what is on its way", () -> {
            String t = topic(1);
            try (var p = transactional(name("txn"), "linger.ms", "10000")) {
                p.beginTransaction();
                for (int i = 0; i < 100; i++) p.send(new ProducerRecord<>(t, "lost"));
                p.abortTransaction();
                p.beginTransaction();
                p.send(new ProducerRecord<>(t, "kept"));
                p.commitTransaction();
            }
            equal(read(t, 0, "read_committed", 1), List.of("kept"));
        });
        for (String protocol : List.of("classic", "consumer")) {
            cases.put("transactions: read, process, write, with a group (" + protocol + ")", () -> {
                String in = topic(1), out = topic(1), g = name("group"), id = name("txn");
                List<String> sent = new ArrayList<>();
                for (int i = 0; i < 50; i++) sent.add("v" + i);
                fill(in, 0, sent.toArray(String[]::new));
                for (int round = 0; round < 2; round++) {
                    int end = 25 * (round + 1);
                    try (var c = consumer(protocol, g, "isolation.level", "read_committed", "max.poll.records", "5"); var p = transactional(id)) {
                        c.subscribe(List.of(in));
                        int[] batches = {0};
                        until("half of them", () -> {
                            var records = c.poll(TICK);
                            if (records.isEmpty()) return false;
                            p.beginTransaction();
                            long next = 0;
                            for (var r : records) {
                                p.send(new ProducerRecord<>(out, 0, "k", r.value()));
                                next = r.offset() + 1;
                            }
                            p.sendOffsetsToTransaction(Map.of(at(in, 0), new OffsetAndMetadata(next)), c.groupMetadata());
                            if (batches[0]++ == 2) { // once, as if something had gone wrong
                                p.abortTransaction();
                                c.seek(at(in, 0), records.iterator().next().offset());
                                return false;
                            }
                            p.commitTransaction();
                            return next >= end;
                        });
                    }
                }
                equal(read(out, 0, "read_committed", 50), sent);
            });
        }
        cases.put("transactions: a second producer fences the first", () -> {
            String t = topic(1), id = name("txn");
            try (var zombie = transactional(id)) {
                zombie.beginTransaction();
                zombie.send(new ProducerRecord<>(t, "lost")).get();
                try (var p = transactional(id)) {
                    p.beginTransaction();
                    p.send(new ProducerRecord<>(t, "kept"));
                    p.commitTransaction();
                }
                fails(ApiException.class, () -> { zombie.send(new ProducerRecord<>(t, "late")).get(); zombie.commitTransaction(); });
                fails(ApiException.class, zombie::commitTransaction);
            }
            equal(read(t, 0, "read_committed", 1), List.of("kept"));
        });
        cases.put("transactions: one that is open for too long is aborted", () -> {
            String t = topic(1), id = name("txn");
            try (var p = transactional(id, "transaction.timeout.ms", "1000")) {
                p.beginTransaction();
                p.send(new ProducerRecord<>(t, "lost")).get();
                until("it is aborted", () -> {
                    try {
                        return admin.describeTransactions(List.of(id)).description(id).get().state() == TransactionState.COMPLETE_ABORT;
                    } catch (Exception e) {
                        return false;
                    }
                });
                fails(KafkaException.class, p::commitTransaction);
            }
            fill(t, 0, "next");
            equal(read(t, 0, "read_committed", 1), List.of("next"));
        });
        cases.put("transactions: offsets of a member that is gone are refused", () -> {
            String t = topic(1), g = name("group");
            fill(t, 0, "a");
            ConsumerGroupMetadata gone;
            try (var c = consumer("classic", g)) {
                c.subscribe(List.of(t));
                poll(c, 1);
                gone = c.groupMetadata();
            }
            try (var p = transactional(name("txn")); var c = consumer("classic", g)) {
                c.subscribe(List.of(t));
                poll(c, 1);
                p.beginTransaction();
                fails(CommitFailedException.class, () -> {
                    p.sendOffsetsToTransaction(Map.of(at(t, 0), new OffsetAndMetadata(1)), gone);
                    p.commitTransaction();
                });
                p.abortTransaction();
                check(c.committed(Set.of(at(t, 0))).get(at(t, 0)) == null, "nothing is committed");
            }
        });
        cases.put("transactions: a record that is refused can be aborted", () -> {
            String t = topic(1, "max.message.bytes", "2000");
            try (var p = transactional(name("txn"))) {
                p.beginTransaction();
                p.send(new ProducerRecord<>(t, "x".repeat(3000)));
                fails(KafkaException.class, p::commitTransaction);
                p.abortTransaction();
                p.beginTransaction();
                p.send(new ProducerRecord<>(t, "small"));
                p.commitTransaction();
            }
            equal(read(t, 0, "read_committed", 1), List.of("small"));
        });
    }

    // The admin client.

    static void adminCases(Map<String, Case> cases) {
        adminTopicCases(cases);
        adminGroupCases(cases);
        adminClusterCases(cases);
        cases.put("admin: transactions and producers", () -> {
            String t = topic(1), id = name("txn");
            try (var p = transactional(id)) {
                p.beginTransaction();
                p.send(new ProducerRecord<>(t, "v")).get();
                var d = admin.describeTransactions(List.of(id)).description(id).get();
                equal(d.state(), TransactionState.ONGOING);
                equal(d.topicPartitions(), Set.of(at(t, 0)));
                check(d.transactionStartTimeMs().isPresent(), "it has begun");
                var listed = admin.listTransactions(new ListTransactionsOptions().filterProducerIds(List.of(d.producerId()))).all().get();
                equal(listed.iterator().next().transactionalId(), id);
                equal(admin.listTransactions(new ListTransactionsOptions().filterOnTransactionalIdPattern(id)).all().get().size(), 1);
                equal(admin.listTransactions(new ListTransactionsOptions().filterOnDuration(3_600_000).filterOnTransactionalIdPattern(id)).all().get().size(), 0);
                var producer = admin.describeProducers(List.of(at(t, 0))).partitionResult(at(t, 0)).get().activeProducers().get(0);
                equal(producer.producerId(), d.producerId());
                equal(producer.currentTransactionStartOffset().getAsLong(), 0L);
                admin.abortTransaction(new AbortTransactionSpec(at(t, 0), producer.producerId(), (short) producer.producerEpoch(), producer.coordinatorEpoch().orElse(0))).all().get();
                check(admin.describeProducers(List.of(at(t, 0))).partitionResult(at(t, 0)).get().activeProducers().get(0).currentTransactionStartOffset().isEmpty(), "it is over");
            }
            fails(TransactionalIdNotFoundException.class, () -> admin.describeTransactions(List.of(name("absent"))).all().get());
        });
        cases.put("admin: fence producers, force a transaction to end", () -> {
            String t = topic(1), one = name("txn"), two = name("txn");
            try (var p = transactional(one); var q = transactional(two)) {
                for (var each : List.of(p, q)) {
                    each.beginTransaction();
                    each.send(new ProducerRecord<>(t, "lost")).get();
                }
                admin.fenceProducers(List.of(one)).all().get();
                admin.forceTerminateTransaction(two).result().get();
                fails(KafkaException.class, p::commitTransaction);
                fails(KafkaException.class, q::commitTransaction);
            }
            fill(t, 0, "next");
            equal(read(t, 0, "read_committed", 1), List.of("next"));
        });
    }

    static void adminTopicCases(Map<String, Case> cases) {
        cases.put("admin: create, describe and delete topics, by name and by id", () -> {
            String a = name("topic"), b = name("topic");
            var validated = admin.createTopics(List.of(new NewTopic(a, 2, (short) 1)), new CreateTopicsOptions().validateOnly(true));
            validated.all().get();
            check(!admin.listTopics().names().get().contains(a), "validated only");
            var created = admin.createTopics(List.of(new NewTopic(a, Map.of(0, List.of(nodeId()), 1, List.of(nodeId()))), new NewTopic(b, Optional.empty(), Optional.empty()).configs(Map.of("retention.ms", "5000"))));
            equal(created.numPartitions(a).get(), 2);
            Uuid id = created.topicId(b).get();
            equal(created.config(b).get().get("retention.ms").value(), "5000");
            var d = known(() -> admin.describeTopics(List.of(a)).allTopicNames().get().get(a));
            equal(d.partitions().get(1).isr().size(), 1);
            equal(known(() -> admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id)).name(), b);
            fails(TopicExistsException.class, () -> admin.createTopics(List.of(new NewTopic(a, 1, (short) 1))).all().get());
            fails(InvalidReplicationFactorException.class, () -> admin.createTopics(List.of(new NewTopic(name("t"), 1, (short) 100))).all().get());
            fails(InvalidPartitionsException.class, () -> admin.createTopics(List.of(new NewTopic(name("t"), 0, (short) 1))).all().get());
            fails(InvalidTopicException.class, () -> admin.createTopics(List.of(new NewTopic("no/name", 1, (short) 1))).all().get());
            fails(InvalidConfigurationException.class, () -> admin.createTopics(List.of(new NewTopic(name("t"), 1, (short) 1).configs(Map.of("retention.ms", "soon")))).all().get());
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
            admin.deleteTopics(TopicCollection.ofTopicNames(List.of(a))).all().get();
            fails(UnknownTopicOrPartitionException.class, () -> admin.deleteTopics(List.of(a)).all().get());
            until("no node knows it", () -> {
                try {
                    admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get();
                    return false;
                } catch (Exception e) {
                    return e.getCause() instanceof UnknownTopicIdException;
                }
            });
        });
        cases.put("admin: add partitions", () -> {
            String t = topic(1);
            admin.createPartitions(Map.of(t, NewPartitions.increaseTo(3))).all().get();
            until("three", () -> { try { return admin.describeTopics(List.of(t)).allTopicNames().get().get(t).partitions().size() == 3; } catch (Exception e) { return false; } });
            fails(InvalidPartitionsException.class, () -> admin.createPartitions(Map.of(t, NewPartitions.increaseTo(2))).all().get());
        });
        cases.put("admin: describe and alter configurations", () -> {
            String t = topic(1);
            var r = new ConfigResource(ConfigResource.Type.TOPIC, t);
            admin.incrementalAlterConfigs(Map.of(r, List.of(
                new AlterConfigOp(new ConfigEntry("retention.ms", "7000"), AlterConfigOp.OpType.SET),
                new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND)))).all().get();
            until("it is altered", () -> { try { return admin.describeConfigs(List.of(r)).all().get().get(r).get("retention.ms").value().equals("7000"); } catch (Exception e) { return false; } });
            var c = admin.describeConfigs(List.of(r), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all().get().get(r);
            equal(c.get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
            equal(c.get("retention.ms").type(), ConfigEntry.ConfigType.LONG);
            equal(c.get("cleanup.policy").value(), "delete,compact");
            check(!c.get("retention.ms").synonyms().isEmpty(), "synonyms");
            check(!c.get("retention.ms").documentation().isEmpty(), "documentation");
            equal(c.get("segment.bytes").isDefault(), true);
            admin.incrementalAlterConfigs(Map.of(r, List.of(new AlterConfigOp(new ConfigEntry("retention.ms", ""), AlterConfigOp.OpType.DELETE)))).all().get();
            until("it is as before", () -> { try { return admin.describeConfigs(List.of(r)).all().get().get(r).get("retention.ms").isDefault(); } catch (Exception e) { return false; } });
            fails(InvalidConfigurationException.class, () -> admin.incrementalAlterConfigs(Map.of(r, List.of(new AlterConfigOp(new ConfigEntry("no.such", "1"), AlterConfigOp.OpType.SET)))).all().get());
            var broker = new ConfigResource(ConfigResource.Type.BROKER, "" + nodeId());
            equal(admin.describeConfigs(List.of(broker)).all().get().get(broker).get("num.partitions").value(), "1");
            check(admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC), new ListConfigResourcesOptions()).all().get().contains(r), "it is listed");
        });
        cases.put("admin: list offsets, delete records", () -> {
            String t = topic(1);
            var p = at(t, 0);
            try (var producer = producer()) {
                for (long i : List.of(1000L, 3000L, 2000L)) producer.send(new ProducerRecord<>(t, 0, i, "k", "v")).get();
            }
            equal(admin.listOffsets(Map.of(p, OffsetSpec.earliest())).partitionResult(p).get().offset(), 0L);
            equal(admin.listOffsets(Map.of(p, OffsetSpec.latest())).partitionResult(p).get().offset(), 3L);
            equal(admin.listOffsets(Map.of(p, OffsetSpec.maxTimestamp())).partitionResult(p).get().offset(), 1L);
            equal(admin.listOffsets(Map.of(p, OffsetSpec.forTimestamp(1500))).partitionResult(p).get().offset(), 1L);
            equal(admin.listOffsets(Map.of(p, OffsetSpec.earliestLocal())).partitionResult(p).get().offset(), 0L);
            equal(admin.deleteRecords(Map.of(p, RecordsToDelete.beforeOffset(2))).lowWatermarks().get(p).get().lowWatermark(), 2L);
            equal(admin.listOffsets(Map.of(p, OffsetSpec.earliest())).partitionResult(p).get().offset(), 2L);
            fails(org.apache.kafka.common.errors.OffsetOutOfRangeException.class, () -> admin.deleteRecords(Map.of(p, RecordsToDelete.beforeOffset(9))).all().get());
        });
        cases.put("admin: log directories", () -> {
            String t = topic(1);
            fill(t, 0, "v");
            int leader = admin.describeTopics(List.of(t)).allTopicNames().get().get(t).partitions().get(0).leader().id();
            var dirs = admin.describeLogDirs(List.of(leader)).allDescriptions().get().get(leader);
            equal(dirs.size(), 1);
            var dir = dirs.values().iterator().next();
            check(dir.replicaInfos().get(at(t, 0)).size() > 0, "it has a size");
            check(dir.totalBytes().isPresent() && dir.usableBytes().isPresent(), "the disk has a size");
            var replica = new TopicPartitionReplica(t, 0, leader);
            check(admin.describeReplicaLogDirs(List.of(replica)).all().get().get(replica).getCurrentReplicaLogDir() != null, "it is somewhere");
        });
    }

    static void adminGroupCases(Map<String, Case> cases) {
        for (String protocol : List.of("classic", "consumer")) {
            cases.put("admin: groups (" + protocol + ")", () -> {
                String t = topic(2), g = name("group");
                fill(t, 0, "a", "b");
                var p = at(t, 0);
                try (var c = consumer(protocol, g, "client.id", "someone", "group.instance.id", "one")) {
                    c.subscribe(List.of(t));
                    poll(c, 2);
                    c.commitSync();
                    var d = admin.describeConsumerGroups(List.of(g)).all().get().get(g);
                    equal(d.groupState(), GroupState.STABLE);
                    equal(d.type(), protocol.equals("classic") ? GroupType.CLASSIC : GroupType.CONSUMER);
                    var m = d.members().iterator().next();
                    equal(m.clientId(), "someone");
                    equal(m.groupInstanceId().get(), "one");
                    equal(m.assignment().topicPartitions(), Set.of(p, at(t, 1)));
                    check(d.coordinator() != null && !d.coordinator().isEmpty(), "it has a coordinator");
                    if (protocol.equals("classic")) equal(admin.describeClassicGroups(List.of(g)).all().get().get(g).protocolData(), "range");
                    else check(m.targetAssignment().isPresent(), "it has a target");
                    check(listed(g, Set.of(GroupState.STABLE)), "it is listed as stable");
                    check(!listed(g, Set.of(GroupState.EMPTY)), "it is not listed as empty");
                    fails(GroupNotEmptyException.class, () -> admin.deleteConsumerGroups(List.of(g)).all().get());
                    fails(UnknownMemberIdException.class, () -> admin.alterConsumerGroupOffsets(g, Map.of(p, new OffsetAndMetadata(0))).all().get());
                    fails(GroupSubscribedToTopicException.class, () -> admin.deleteConsumerGroupOffsets(g, Set.of(p)).all().get());
                    admin.removeMembersFromConsumerGroup(g, new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("one")))).all().get();
                }
                until("it is empty", () -> listed(g, Set.of(GroupState.EMPTY)));
                admin.alterConsumerGroupOffsets(g, Map.of(p, new OffsetAndMetadata(1))).all().get();
                equal(admin.listConsumerGroupOffsets(g).partitionsToOffsetAndMetadata().get().get(p).offset(), 1L);
                admin.deleteConsumerGroupOffsets(g, Set.of(p)).all().get();
                check(!admin.listConsumerGroupOffsets(g).partitionsToOffsetAndMetadata().get().containsKey(p), "it is deleted");
                admin.deleteConsumerGroups(List.of(g)).all().get();
                fails(GroupIdNotFoundException.class, () -> admin.deleteConsumerGroups(List.of(g)).all().get());
                fails(GroupIdNotFoundException.class, () -> admin.describeConsumerGroups(List.of(g)).all().get());
                equal(admin.listConsumerGroupOffsets(g).partitionsToOffsetAndMetadata().get().size(), 0);
            });
        }
    }

    static boolean listed(String group, Set<GroupState> states) {
        try {
            return admin.listGroups(ListGroupsOptions.forConsumerGroups().inGroupStates(states)).all().get().stream().anyMatch(l -> l.groupId().equals(group));
        } catch (Exception e) {
            throw new RuntimeException(e);
        }
    }

    static int nodeId() throws Exception { return admin.describeCluster().nodes().get().iterator().next().id(); }

    static void adminClusterCases(Map<String, Case> cases) {
        cases.put("admin: the cluster and its features", () -> {
            var d = admin.describeCluster(new DescribeClusterOptions().includeFencedBrokers(true));
            equal(d.clusterId().get().length(), 22);
            int controller = d.controller().get().id();
            check(d.nodes().get().stream().anyMatch(n -> n.id() == controller), "the controller is a node");
            var features = admin.describeFeatures().featureMetadata().get();
            equal(features.finalizedFeatures().get("transaction.version").maxVersionLevel(), (short) 2);
            equal(features.finalizedFeatures().get("group.version").maxVersionLevel(), (short) 1);
            fails(ApiException.class, () -> admin.updateFeatures(Map.of("metadata.version", new FeatureUpdate((short) 9999, FeatureUpdate.UpgradeType.UPGRADE)), new UpdateFeaturesOptions().validateOnly(true)).all().get());
        });
        cases.put("admin: reassign partitions, elect leaders", () -> {
            String t = topic(1);
            var p = at(t, 0);
            admin.alterPartitionReassignments(Map.of(p, Optional.of(new NewPartitionReassignment(List.of(nodeId()))))).all().get();
            until("the replica is where it should be", () -> {
                try {
                    return admin.listPartitionReassignments(Set.of(p)).reassignments().get().isEmpty();
                } catch (Exception e) {
                    return false;
                }
            });
            fails(InvalidReplicaAssignmentException.class, () -> admin.alterPartitionReassignments(Map.of(p, Optional.of(new NewPartitionReassignment(List.of(4711))))).all().get());
            fails(NoReassignmentInProgressException.class, () -> admin.alterPartitionReassignments(Map.of(p, Optional.empty())).all().get());
            var elected = admin.electLeaders(ElectionType.PREFERRED, Set.of(p)).partitions().get().get(p);
            check(elected.get() instanceof ElectionNotNeededException, "elected: " + elected);
        });
        cases.put("admin: describe the metadata quorum", () -> check(admin.describeMetadataQuorum().quorumInfo().get().leaderId() >= 0, "it has a leader"));
        cases.put("admin: quotas of clients", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
        cases.put("admin: SCRAM credentials", () -> admin.describeUserScramCredentials().all().get());
        cases.put("admin: configurations of groups", () -> {
            var r = new ConfigResource(ConfigResource.Type.GROUP, name("group"));
            admin.incrementalAlterConfigs(Map.of(r, List.of(new AlterConfigOp(new ConfigEntry("consumer.session.timeout.ms", "50000"), AlterConfigOp.OpType.SET)))).all().get();
        });
        cases.put("admin: levels of loggers", () -> {
            var r = new ConfigResource(ConfigResource.Type.BROKER_LOGGER, "" + nodeId());
            check(!admin.describeConfigs(List.of(r)).all().get().get(r).entries().isEmpty(), "there are loggers");
        });
    }
}
