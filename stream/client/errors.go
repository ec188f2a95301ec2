package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Errors callers branch on. What the broker said is wrapped with them.
var (
	// ErrClosed says that the client, or the part of it that was used, is closed.
	ErrClosed = errors.New("client: closed")
	// ErrUnknownTopic says that the cluster has no such topic or partition.
	ErrUnknownTopic = errors.New("client: topic or partition does not exist")
	// ErrTopicExists says that a topic to be created exists already.
	ErrTopicExists = errors.New("client: topic exists already")
	// ErrOffsetOutOfRange says that the log does not hold the offset asked for.
	ErrOffsetOutOfRange = errors.New("client: offset is out of range")
	// ErrFenced says that the group has dropped this member, or gave its place to
	// another: what it owned is no longer its own, and its commits are refused.
	ErrFenced = errors.New("client: the group has fenced this member")
	// ErrProducerFailed says that a producer cannot go on in order: what was not
	// flushed may or may not be in the log. Make a new producer.
	ErrProducerFailed = errors.New("client: producer failed")
	// ErrUnknownGroup says that the cluster has no such group.
	ErrUnknownGroup = errors.New("client: group does not exist")
	// ErrGroupNotEmpty says that a group has members and only they may do that.
	ErrGroupNotEmpty = errors.New("client: group has members")
	// ErrUnknownTransaction says that the cluster has no such transactional id.
	ErrUnknownTransaction = errors.New("client: transactional id does not exist")
)

// codeError turns a response's error code into an error; nil for 0.
func codeError(code int16) error {
	err := kerr.ErrorForCode(code)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return fmt.Errorf("%w: %w", ErrUnknownTopic, err)
	case errors.Is(err, kerr.TopicAlreadyExists):
		return fmt.Errorf("%w: %w", ErrTopicExists, err)
	case errors.Is(err, kerr.OffsetOutOfRange):
		return fmt.Errorf("%w: %w", ErrOffsetOutOfRange, err)
	case errors.Is(err, kerr.NonEmptyGroup):
		return fmt.Errorf("%w: %w", ErrGroupNotEmpty, err)
	case errors.Is(err, kerr.GroupIDNotFound):
		return fmt.Errorf("%w: %w", ErrUnknownGroup, err)
	case errors.Is(err, kerr.TransactionalIDNotFound):
		return fmt.Errorf("%w: %w", ErrUnknownTransaction, err)
	}
	return err
}

// messageError is codeError with what the broker adds in words.
func messageError(code int16, message *string) error {
	err := codeError(code)
	if err != nil && message != nil && *message != "" {
		return fmt.Errorf("%w: %s", err, *message)
	}
	return err
}

// isTransport says that err came from the way to the broker and not from the
// broker: nothing is known about the request's fate.
func isTransport(err error) bool {
	var fromBroker *kerr.Error
	return err != nil && !errors.As(err, &fromBroker) && !errors.Is(err, context.Canceled) &&
		!errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrClosed)
}

// staleMetadata says that code means: ask for the partition's leader again.
func staleMetadata(code int16) bool {
	switch kerr.ErrorForCode(code) {
	case kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch,
		kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InconsistentTopicID, kerr.ReplicaNotAvailable,
		kerr.KafkaStorageError, kerr.OffsetNotAvailable, kerr.BrokerNotAvailable:
		return true
	}
	return false
}
