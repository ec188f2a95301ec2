package quorum

import (
	"fmt"

	"github.com/rs/zerolog"
)

// raftLogger hands raft's log lines to zerolog: what raft calls info is a debug
// line here, since an election is reported by the member itself.
type raftLogger struct{ zerolog.Logger }

func (l raftLogger) Debug(v ...any)                   { l.Logger.Trace().Msg(fmt.Sprint(v...)) }
func (l raftLogger) Debugf(format string, v ...any)   { l.Logger.Trace().Msgf(format, v...) }
func (l raftLogger) Info(v ...any)                    { l.Logger.Debug().Msg(fmt.Sprint(v...)) }
func (l raftLogger) Infof(format string, v ...any)    { l.Logger.Debug().Msgf(format, v...) }
func (l raftLogger) Warning(v ...any)                 { l.Logger.Debug().Msg(fmt.Sprint(v...)) }
func (l raftLogger) Warningf(format string, v ...any) { l.Logger.Debug().Msgf(format, v...) }
func (l raftLogger) Error(v ...any)                   { l.Logger.Error().Msg(fmt.Sprint(v...)) }
func (l raftLogger) Errorf(format string, v ...any)   { l.Logger.Error().Msgf(format, v...) }

// Fatal and Panic are raft's assertions: they must not return.
func (l raftLogger) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
