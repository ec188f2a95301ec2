package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Dialer opens a connection to a broker, as net.Dialer.DialContext does.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Config says how to reach a cluster.
type Config struct {
	// Bootstrap is the addresses, HOST:PORT, of one or more brokers. Required.
	Bootstrap []string
	// ClientID names the program in the brokers' logs and metrics. Default "leat".
	ClientID string
	// Dialer opens connections; nil uses TCP. A program that embeds the broker may
	// give the broker's in-memory dialer.
	Dialer Dialer
	// RetryTimeout is how long metadata, group and admin requests are tried again
	// when brokers do not answer. Default 30 s.
	RetryTimeout time.Duration
	// Logger gets what is worth telling about connections and retries.
	Logger zerolog.Logger
}

// Partition names a partition of a topic.
type Partition struct {
	Topic     string
	Partition int32
}

// String returns "topic-partition".
func (p Partition) String() string { return fmt.Sprintf("%s-%d", p.Topic, p.Partition) }

// Client is a connection to a cluster. Safe for concurrent use.
type Client struct {
	cfg Config
	kgo *kgo.Client
	adm *kadm.Client
	log zerolog.Logger

	metadata metadataCache

	firstMu sync.Mutex
	first   *kgo.Client // speaks the first transaction protocol; nil until it is needed

	closeOnce sync.Once
	closed    chan struct{}
}

// New returns a client. It does not connect yet.
func New(cfg Config) (*Client, error) {
	if len(cfg.Bootstrap) == 0 {
		return nil, errors.New("client: no bootstrap address: give HOST:PORT of at least one broker")
	}
	for _, address := range cfg.Bootstrap {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("client: bootstrap address %q: %w: use HOST:PORT", address, err)
		}
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "leat"
	}
	if cfg.RetryTimeout <= 0 {
		cfg.RetryTimeout = 30 * time.Second
	}
	c := &Client{cfg: cfg, log: cfg.Logger, closed: make(chan struct{})}
	k, err := kgo.NewClient(c.options()...)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c.kgo, c.adm = k, kadm.NewClient(k)
	c.metadata.topics = make(map[string]*Topic)
	return c, nil
}

// options are kgo's for this client.
func (c *Client) options() []kgo.Opt {
	options := []kgo.Opt{
		kgo.SeedBrokers(c.cfg.Bootstrap...),
		kgo.ClientID(c.cfg.ClientID),
		kgo.RetryTimeout(c.cfg.RetryTimeout),
		kgo.AlwaysRetryEOF(), // a broker that dies right after it accepted is not one that asks for SASL
		kgo.WithLogger(logAdapter{c.cfg.Logger}),
		kgo.SoftwareNameAndVersion("leat", "1"),
	}
	if c.cfg.Dialer != nil {
		options = append(options, kgo.Dialer(c.cfg.Dialer))
	}
	return options
}

// Close closes every connection. Fetchers, producers and groups must be closed
// before.
func (c *Client) Close() {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.closeFirst()
		c.kgo.Close()
	})
}

// Ping asks any broker for an answer.
func (c *Client) Ping(ctx context.Context) error {
	if err := c.kgo.Ping(ctx); err != nil {
		return fmt.Errorf("client: no broker answers at %v: %w", c.cfg.Bootstrap, err)
	}
	return nil
}

// request asks one broker, once.
func (c *Client) request(ctx context.Context, broker int32, req kmsg.Request) (kmsg.Response, error) {
	return c.requestWith(ctx, c.kgo, broker, req)
}

func (c *Client) requestWith(ctx context.Context, k *kgo.Client, broker int32, req kmsg.Request) (kmsg.Response, error) {
	resp, err := k.Broker(int(broker)).Request(ctx, req)
	if err != nil {
		return nil, c.closedOr(err)
	}
	return resp, nil
}

// closedOr replaces kgo's error for a closed client by this package's.
func (c *Client) closedOr(err error) error {
	select {
	case <-c.closed:
		return ErrClosed
	default:
	}
	if errors.Is(err, kgo.ErrClientClosed) {
		return ErrClosed
	}
	return err
}

// sleep waits; false when ctx or the client ended.
func (c *Client) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-c.closed:
		return false
	}
}

// backoff returns how long to wait before try n (from 1): 50 ms doubling to 1 s.
func backoff(n int) time.Duration {
	return min(50*time.Millisecond<<min(max(n-1, 0), 10), time.Second)
}

// logAdapter hands kgo's lines to zerolog. kgo's warnings are mostly retries
// that succeed, so everything but its errors is for debugging.
type logAdapter struct{ log zerolog.Logger }

func (l logAdapter) Level() kgo.LogLevel {
	switch level := l.log.GetLevel(); {
	case level <= zerolog.TraceLevel:
		return kgo.LogLevelDebug
	case level <= zerolog.DebugLevel:
		return kgo.LogLevelInfo
	case level >= zerolog.Disabled:
		return kgo.LogLevelNone
	}
	return kgo.LogLevelError
}

func (l logAdapter) Log(level kgo.LogLevel, msg string, pairs ...any) {
	var e *zerolog.Event
	switch level {
	case kgo.LogLevelError:
		e = l.log.Warn()
	case kgo.LogLevelWarn, kgo.LogLevelInfo:
		e = l.log.Debug()
	default:
		e = l.log.Trace()
	}
	e.Fields(pairs).Msg(msg)
}
