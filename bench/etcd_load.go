// A load for etcd by its own Go client, with the options and figures of `python -m trio_kv bench`.
//
// Each of -clients goroutines has one call under way; they share -connections client connections. It prints one
// line of JSON. Built in GOPATH mode against Debian's golang-etcd-server-dev:
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o etcd_load etcd_load.go
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
)

var (
	endpoints    = flag.String("endpoints", "127.0.0.1:2379", "addresses, with commas between them")
	connections  = flag.Int("connections", 64, "client connections")
	clients      = flag.Int("clients", 64, "calls under way")
	mix          = flag.Float64("mix", 100, "share of puts in per cent")
	serializable = flag.Bool("stale", false, "serializable gets instead of linearizable ones")
	keys         = flag.Int("keys", 10000, "key space")
	valueBytes   = flag.Int("value-bytes", 100, "size of a value")
	warmUp       = flag.Float64("warm-up", 0, "seconds before anything counts")
	duration     = flag.Float64("duration", 2, "seconds that count")
	timeout      = flag.Float64("timeout", 5, "seconds that a call may take")
	fill         = flag.Bool("fill", false, "put every key once before, and count nothing of it")
)

// One goroutine's figures; nothing is shared while the load runs.
type worker struct {
	latencies []time.Duration
	answered  []time.Time
	errors    map[string]int
	wrong     int
}

func key(n int) string { return fmt.Sprintf("bench:%07d", n) }

func value(n int) string {
	text := fmt.Sprintf("%s.0.", key(n))
	if len(text) < *valueBytes {
		text += strings.Repeat("x", *valueBytes-len(text))
	}
	return text[:*valueBytes]
}

func (w *worker) call(client *clientv3.Client, n int, isPut bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(*timeout*1e9))
	defer cancel()
	if isPut {
		_, err := client.Put(ctx, key(n), value(n))
		return err
	}
	var options []clientv3.OpOption
	if *serializable {
		options = append(options, clientv3.WithSerializable())
	}
	reply, err := client.Get(ctx, key(n), options...)
	if err == nil && (len(reply.Kvs) != 1 || string(reply.Kvs[0].Value) != value(n)) {
		w.wrong++
	}
	return err
}

func (w *worker) run(client *clientv3.Client, source *rand.Rand, begin, end time.Time) {
	for {
		n, isPut := source.Intn(*keys), source.Float64()*100 < *mix
		sent := time.Now()
		if sent.After(end) {
			return
		}
		err := w.call(client, n, isPut)
		now := time.Now()
		if now.Before(begin) || now.After(end) {
			continue
		}
		if err != nil {
			w.errors[err.Error()]++
			continue
		}
		w.latencies = append(w.latencies, now.Sub(sent))
		w.answered = append(w.answered, now)
	}
}

func fillAll(pool []*clientv3.Client) {
	var next int64 = -1
	var group sync.WaitGroup
	for i := 0; i < *clients; i++ {
		group.Add(1)
		go func(client *clientv3.Client) {
			defer group.Done()
			for n := int(atomic.AddInt64(&next, 1)); n < *keys; n = int(atomic.AddInt64(&next, 1)) {
				if _, err := client.Put(context.Background(), key(n), value(n)); err != nil {
					fail(err)
				}
			}
		}(pool[i%len(pool)])
	}
	group.Wait()
}

func main() {
	flag.Parse()
	var pool []*clientv3.Client
	for i := 0; i < *connections; i++ {
		client, err := clientv3.New(clientv3.Config{
			Endpoints: strings.Split(*endpoints, ","), DialTimeout: 10 * time.Second,
		})
		if err != nil {
			fail(err)
		}
		pool = append(pool, client)
	}
	if *fill {
		fillAll(pool)
	}
	begin := time.Now().Add(time.Duration(*warmUp * 1e9))
	end := begin.Add(time.Duration(*duration * 1e9))
	workers := make([]worker, *clients)
	var group sync.WaitGroup
	for i := range workers {
		workers[i].errors = map[string]int{}
		group.Add(1)
		go func(i int) {
			defer group.Done()
			workers[i].run(pool[i%len(pool)], rand.New(rand.NewSource(int64(i))), begin, end)
		}(i)
	}
	group.Wait()
	report(workers, begin, end)
}

func report(workers []worker, begin, end time.Time) {
	var latencies []time.Duration
	answered := []time.Time{begin, end}
	errors, wrong := map[string]int{}, 0
	for _, each := range workers {
		latencies = append(latencies, each.latencies...)
		answered = append(answered, each.answered...)
		wrong += each.wrong
		for text, count := range each.errors {
			errors[text] += count
		}
	}
	sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
	sort.Slice(answered, func(i, j int) bool { return answered[i].Before(answered[j]) })
	var gap time.Duration
	for i := 1; i < len(answered); i++ {
		if each := answered[i].Sub(answered[i-1]); each > gap {
			gap = each
		}
	}
	figures := map[string]interface{}{
		"count": len(latencies), "per_second": float64(len(latencies)) / end.Sub(begin).Seconds(),
		"errors": errors, "wrong": wrong, "longest_gap_ms": gap.Seconds() * 1000,
	}
	if len(latencies) > 0 {
		for name, share := range map[string]float64{"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1} {
			place := int(share * float64(len(latencies)))
			if place == len(latencies) {
				place--
			}
			figures[name] = latencies[place].Seconds() * 1000
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(figures); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
