package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

var ctx = context.Background()

func ask(who *redis.Client, words ...any) []any {
	answer, err := who.Do(ctx, append([]any{"NEAP.ACQUIRE", "one"}, words...)...).Slice()
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	return answer
}

func release(who *redis.Client, lease any, how string) {
	n, err := who.Do(ctx, "NEAP.RELEASE", lease, how).Int()
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("release", n)
}

func waiting(who *redis.Client) bool {
	look, _ := who.Do(ctx, "NEAP.SNAPSHOT", "one").Result()
	switch fields := look.(type) {
	case map[any]any:
		return fields["waiting"] == int64(1)
	case []any:
		return fields[3] == int64(1)
	}
	return false
}

func main() {
	address := os.Args[1] + ":" + os.Args[2]
	a := redis.NewClient(&redis.Options{Addr: address})
	b := redis.NewClient(&redis.Options{Addr: address, ReadTimeout: 10 * time.Second})
	fmt.Println("ping", a.Ping(ctx).Val())
	first := ask(a)
	fmt.Println("first", first[0])
	second := ask(b, "BLOCK", 50)
	fmt.Println("second", second[0], second[4])

	granted := make(chan []any)
	go func() { granted <- ask(b, "BLOCK", 5000) }()
	for !waiting(a) {
	}
	release(a, first[1], "OK")
	third := <-granted
	fmt.Println("third", third[0])

	// It asks again by itself, by another connection, until it has had enough.
	c := redis.NewClient(&redis.Options{Addr: address, ReadTimeout: 100 * time.Millisecond, MaxRetries: 2})
	if err := c.Do(ctx, "NEAP.ACQUIRE", "one", "BLOCK", 2000, "ID", "job-1").Err(); err != nil {
		fmt.Println("time-out")
	}
	a.Do(ctx, "NEAP.RELEASE", third[1], "OK")
	fourth := ask(b, "BLOCK", 2000, "ID", "job-1")
	fifth := ask(b, "ID", "job-1")
	same := "another"
	if fourth[1] == fifth[1] {
		same = "same"
	}
	fmt.Println("fourth", fourth[0], same)
	release(a, fourth[1], "FAIL")
	release(a, fourth[1], "FAIL")
}
