package main

import (
	"errors"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	seen := time.Unix(1_700_000_000, 0)
	at := func(text string) time.Time {
		when, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for line, want := range map[string]Entry{
		`{"level":"WARN","time":"2026-01-02T03:04:05Z","message":"slow"}`: {Time: at("2026-01-02T03:04:05Z"), Level: "warn", Message: "slow"},
		`{"severity":"critical","ts":1700000001.5,"msg":"gone"}`:          {Time: at("2023-11-14T22:13:21.5Z"), Level: "fatal", Message: "gone"},
		`{"other":1}`: {Time: seen, Level: "none", Message: `{"other":1}`},
		`time=2026-01-02T03:04:05.25Z level=error msg="no such \"file\"" code=2`: {Time: at("2026-01-02T03:04:05.25Z"), Level: "error", Message: `no such "file"`},
		`sublevel=debug level=info x`:                                            {Time: seen, Level: "info", Message: "sublevel=debug level=info x"},
		`[2026-01-02 03:04:05,123+00:00] Warning: low`:                           {Level: "warn", Message: "[2026-01-02 03:04:05,123+00:00] Warning: low", Time: seen},
		`2026-01-02T03:04:05Z ERROR disk`:                                        {Time: at("2026-01-02T03:04:05Z"), Level: "error", Message: "2026-01-02T03:04:05Z ERROR disk"},
		`Nov 23 09:40:01 host sshd[12]: informal terrors`:                        {Time: seen, Level: "none", Message: "Nov 23 09:40:01 host sshd[12]: informal terrors"},
		`level=`: {Time: seen, Level: "none", Message: "level="},
	} {
		want.Source = "file"
		got, err := parse("file", line, seen)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if !got.Time.Equal(want.Time) {
			t.Errorf("%s: time %v, want %v", line, got.Time, want.Time)
		}
		if got.Time = want.Time; got != want {
			t.Errorf("%s: %+v, want %+v", line, got, want)
		}
	}
	if _, err := parse("file", `{"level":`, seen); !errors.Is(err, errJSON) {
		t.Errorf("half a JSON: %v", err)
	}
	if _, err := parse("file", "\xff\xfe", seen); !errors.Is(err, errNotText) {
		t.Errorf("bytes: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"level":"info","time":-1}`)
	f.Add(`level=info msg="a`)
	f.Fuzz(func(t *testing.T, line string) {
		e, err := parse("f", line, time.Unix(1, 0))
		if err == nil && (e.Time.Unix() <= 0 || e.Level == "") {
			t.Errorf("%q gives %+v", line, e)
		}
	})
}
