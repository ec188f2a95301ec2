package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The topics of a round.
const (
	plainTopic       = "plain"
	idempotentTopic  = "idempotent"
	transactionTopic = "transactional"
	registerTopic    = "register" // of one partition
	groupName        = "readers"
)

// partitions are the partitions of the topics.
var partitions = map[string]int32{plainTopic: 3, idempotentTopic: 3, transactionTopic: 3, registerTopic: 1}

// workloads are what client processes do until they get SIGTERM.
var workloads = map[string]func(*worker){
	"plain":         func(w *worker) { w.several(2, w.producePlain) },
	"idempotent":    func(w *worker) { w.several(2, w.produceIdempotent) },
	"transactional": func(w *worker) { w.several(2, w.transact) },
	"register":      func(w *worker) { w.several(3, w.register) },
	"group":         func(w *worker) { w.several(3, w.consume) },
	"offsets":       func(w *worker) { w.several(1, w.watchOffsets) },
	"topics":        func(w *worker) { w.several(3, w.createAndDelete) },
}

// worker is a client process.
type worker struct {
	kind    string
	brokers []string
	seed    uint64
	*recorder
	running context.Context // until SIGTERM
	patient context.Context // some time longer, for what is under way
}

// patience is how long clients wait at the end for what is under way. By then all
// faults have ended.
const patience = 40 * time.Second

func clientOptions(brokers []string) []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(brokers...), kgo.AlwaysRetryEOF(), kgo.MetadataMinAge(50 * time.Millisecond), kgo.MetadataMaxAge(5 * time.Second),
		kgo.DialTimeout(2 * time.Second), kgo.RequestTimeoutOverhead(3 * time.Second),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(time.Duration(n+1)*20*time.Millisecond, 300*time.Millisecond) })}
}

// runClient is the main function of a client process.
func runClient(args []string) error {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	kind := flags.String("kind", "", "workload")
	brokers := flags.String("brokers", "", "addresses, separated by commas")
	out := flags.String("out", "", "file for the history")
	seed := flags.Uint64("seed", 1, "seed of the workload")
	if err := flags.Parse(args); err != nil {
		return err
	}
	work, ok := workloads[*kind]
	if !ok {
		return fmt.Errorf("client: no workload is called %q", *kind)
	}
	r, err := newRecorder(*out)
	if err != nil {
		return err
	}
	running, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	patient, cancel := context.WithCancel(context.Background())
	defer cancel()
	context.AfterFunc(running, func() { time.AfterFunc(patience, cancel) })
	work(&worker{kind: *kind, brokers: strings.Split(*brokers, ","), seed: *seed, recorder: r, running: running, patient: patient})
	return r.Close()
}

// several runs members of a workload, each with a name and a random source of its own.
func (w *worker) several(n int, run func(name string, random *rand.Rand)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { run(fmt.Sprintf("%s-%d", w.kind, i), rand.New(rand.NewPCG(w.seed, uint64(i)))) })
	}
	all.Wait()
}

func (w *worker) connect(opts ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(clientOptions(w.brokers), opts...)...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) // options that cannot be
	}
	return client
}

func (w *worker) pause(d time.Duration) {
	select {
	case <-w.running.Done():
	case <-time.After(d):
	}
}

// produce writes records and records what became of each.
func (w *worker) produce(ctx context.Context, client *kgo.Client, name, topic string, values []string) error {
	var records []*kgo.Record
	for _, value := range values {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte(value)})
	}
	call := time.Now().UnixNano()
	var first error
	for _, result := range client.ProduceSync(ctx, records...) {
		op := operation{Client: name, Kind: produced, Topic: topic, Partition: result.Record.Partition, Offset: result.Record.Offset,
			Value: string(result.Record.Value), Outcome: succeeded, Call: call, Return: time.Now().UnixNano()}
		if result.Err != nil {
			first = errors.Join(first, result.Err)
			op.Outcome, op.Error = unknown, failure(result.Err)
		}
		w.record(op)
	}
	return first
}

func numbered(name string, n *int, count int) []string {
	var values []string
	for range count {
		*n++
		values = append(values, fmt.Sprintf("%s/%d", name, *n))
	}
	return values
}

func (w *worker) producePlain(name string, random *rand.Rand) {
	client := w.connect(kgo.DisableIdempotentWrite(), kgo.RecordDeliveryTimeout(5*time.Second), kgo.ProduceRequestTimeout(2*time.Second),
		kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	defer client.Close()
	for n := 0; w.running.Err() == nil; w.pause(5 * time.Millisecond) {
		_ = w.produce(w.patient, client, name, plainTopic, numbered(name, &n, 1+random.IntN(20))) // recorded
	}
}

// produceIdempotent goes on with another producer id after an error: the client holds on to
// its own only while nothing is in doubt.
func (w *worker) produceIdempotent(name string, random *rand.Rand) {
	var client *kgo.Client
	for n := 0; w.running.Err() == nil; w.pause(5 * time.Millisecond) {
		if client == nil {
			client = w.connect(kgo.ProduceRequestTimeout(2*time.Second), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.StopProducerOnDataLossDetected())
		}
		if w.produce(w.patient, client, name, idempotentTopic, numbered(name, &n, 1+random.IntN(20))) != nil {
			client.Close()
			client = nil
		}
	}
	if client != nil {
		client.Close()
	}
}

// register appends one record at a time, and gives up on one soon, so that many requests are
// of unknown outcome and come late.
func (w *worker) register(name string, _ *rand.Rand) {
	client := w.connect(kgo.DisableIdempotentWrite(), kgo.RecordDeliveryTimeout(time.Second), kgo.RecordRetries(0), kgo.ProduceRequestTimeout(time.Second), kgo.ProducerLinger(0))
	defer client.Close()
	for n := 0; w.running.Err() == nil; w.pause(10 * time.Millisecond) {
		_ = w.produce(w.patient, client, name, registerTopic, numbered(name, &n, 1)) // recorded
	}
}

func (w *worker) transact(name string, random *rand.Rand) {
	var client *kgo.Client
	for n := 0; w.running.Err() == nil; w.pause(5 * time.Millisecond) {
		if client == nil {
			client = w.connect(kgo.TransactionalID(name), kgo.TransactionTimeout(10*time.Second), kgo.ProduceRequestTimeout(2*time.Second),
				kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
		}
		op := operation{Client: name, Kind: transacted, Topic: transactionTopic, Values: numbered(name, &n, 2+random.IntN(12)), Call: time.Now().UnixNano()}
		err := w.oneTransaction(client, &op, random.IntN(4) > 0)
		op.Return = time.Now().UnixNano()
		if err != nil {
			op.Error = failure(err)
			client.Close()
			client = nil
		}
		w.record(op)
	}
	if client != nil {
		client.Close()
	}
}

// oneTransaction carries out a transaction and sets its outcome.
func (w *worker) oneTransaction(client *kgo.Client, op *operation, commit bool) error {
	ctx, cancel := context.WithTimeout(w.patient, 15*time.Second)
	defer cancel()
	op.Outcome = failed // no commit is asked for yet
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	for _, value := range op.Values {
		records = append(records, &kgo.Record{Topic: transactionTopic, Value: []byte(value)})
	}
	produced := client.ProduceSync(ctx, records...).FirstErr()
	if produced != nil || !commit {
		return errors.Join(produced, client.EndTransaction(ctx, kgo.TryAbort))
	}
	op.Outcome = unknown
	if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return err
	}
	op.Outcome = succeeded
	return nil
}

// createAndDelete creates and deletes a few topics that others create and delete as
// well. Requests are sent once: a repeated one would tell of itself.
func (w *worker) createAndDelete(name string, random *rand.Rand) {
	client := w.connect()
	defer client.Close()
	for w.running.Err() == nil {
		topic := fmt.Sprintf("made-%d", random.IntN(3))
		op := operation{Client: name, Kind: created, Topic: topic, Call: time.Now().UnixNano()}
		ctx, cancel := context.WithTimeout(w.patient, 4*time.Second)
		seeds := client.SeedBrokers()
		seed := seeds[random.IntN(len(seeds))]
		var code int16
		var err error
		if random.IntN(2) == 0 {
			code, err = createOnce(ctx, seed, topic)
		} else {
			op.Kind = deleted
			code, err = deleteOnce(ctx, seed, topic)
		}
		cancel()
		op.Return, op.Outcome = time.Now().UnixNano(), succeeded
		switch told := kerr.ErrorForCode(code); {
		case err != nil:
			op.Outcome, op.Error = unknown, failure(err)
		case told == nil:
		case errors.Is(told, kerr.TopicAlreadyExists) && op.Kind == created:
			op.Existed = true
		case errors.Is(told, kerr.UnknownTopicOrPartition) && op.Kind == deleted:
			op.Missing = true
		default:
			op.Outcome, op.Error = unknown, failure(told)
		}
		w.record(op)
		w.pause(time.Duration(50+random.IntN(150)) * time.Millisecond)
	}
}

func createOnce(ctx context.Context, broker *kgo.Broker, topic string) (int16, error) {
	request, t := kmsg.NewPtrCreateTopicsRequest(), kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, 1, 3
	request.Topics, request.TimeoutMillis = append(request.Topics, t), 3000
	response, err := broker.Request(ctx, request)
	if err != nil {
		return 0, err
	}
	return response.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode, nil
}

func deleteOnce(ctx context.Context, broker *kgo.Broker, topic string) (int16, error) {
	request, t := kmsg.NewPtrDeleteTopicsRequest(), kmsg.NewDeleteTopicsRequestTopic()
	t.Topic = &topic
	request.Topics, request.TopicNames, request.TimeoutMillis = append(request.Topics, t), []string{topic}, 3000
	response, err := broker.Request(ctx, request)
	if err != nil {
		return 0, err
	}
	return response.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode, nil
}
