package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// transactionFeature is the cluster's feature that says which transaction
// protocol is in use (KIP-890, KIP-1022).
const transactionFeature = "transaction.version"

// Requests that the second version of the transaction protocol has changed, and
// the last version of each that belongs to the first (KIP-890).
const (
	produceKey         = 0
	addPartitionsKey   = 24
	endTransactionKey  = 26
	transactionOffsets = 28

	produceBeforeV2 = 11
	endBeforeV2     = 4
	offsetsBeforeV2 = 4
)

// TransactionVersion returns the transaction protocol of the cluster: 2 when
// brokers add partitions to transactions by themselves and bump the producer's
// epoch at every end (KIP-890), 1 when not. ErrNoTransactions says that it has
// none.
func (c *Client) TransactionVersion(ctx context.Context) (int16, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "leat", "1"
	resp, err := req.RequestWith(ctx, c.kgo)
	if err != nil {
		return 0, fmt.Errorf("client: api versions: %w", c.closedOr(err))
	}
	if err := codeError(resp.ErrorCode); err != nil {
		return 0, fmt.Errorf("client: api versions: %w", err)
	}
	served := make(map[int16]int16, len(resp.ApiKeys))
	for _, k := range resp.ApiKeys {
		served[k.ApiKey] = k.MaxVersion
	}
	for _, key := range []int16{endTransactionKey, transactionOffsets} {
		if _, ok := served[key]; !ok {
			return 0, ErrNoTransactions
		}
	}
	if served[produceKey] > produceBeforeV2 && served[endTransactionKey] > endBeforeV2 && served[transactionOffsets] > offsetsBeforeV2 {
		for _, f := range resp.FinalizedFeatures {
			if f.Name == transactionFeature && f.MaxVersionLevel >= 2 {
				return 2, nil
			}
		}
	}
	if _, ok := served[addPartitionsKey]; !ok {
		return 0, ErrNoTransactions
	}
	return 1, nil
}

// transactional returns the connections for transactions and their protocol's
// version. The first version needs connections of its own: what makes a broker
// take the second is the version of a request, which kgo picks as high as both
// sides have it.
func (c *Client) transactional(ctx context.Context) (*kgo.Client, int16, error) {
	version, err := c.TransactionVersion(ctx)
	if err != nil {
		return nil, 0, err
	}
	if version >= 2 {
		return c.kgo, version, nil
	}
	c.firstMu.Lock()
	defer c.firstMu.Unlock()
	if c.first != nil {
		return c.first, version, nil
	}
	versions := kversion.Tip()
	versions.SetMaxKeyVersion(produceKey, produceBeforeV2)
	versions.SetMaxKeyVersion(endTransactionKey, endBeforeV2)
	versions.SetMaxKeyVersion(transactionOffsets, offsetsBeforeV2)
	k, err := kgo.NewClient(append(c.options(), kgo.MaxVersions(versions))...)
	if err != nil {
		return nil, 0, fmt.Errorf("client: %w", err)
	}
	c.first = k
	return k, version, nil
}

// closeFirst closes the connections of the first transaction protocol.
func (c *Client) closeFirst() {
	c.firstMu.Lock()
	defer c.firstMu.Unlock()
	if c.first != nil {
		c.first.Close()
	}
}

// ErrNoTransactions says that the cluster serves no transactions.
var ErrNoTransactions = errors.New("client: the cluster has no transactions")
