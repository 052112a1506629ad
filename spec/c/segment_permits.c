/* SPDX-License-Identifier: MIT */
/* segment_permits.c - permits by key in a segment, words that are swapped there, and those who wait;
 * with processes that are killed.
 *
 * Each child counts, in memory of its own that the parent sees, what it is about to take and what it
 * has given back, so after its death it is known within one what it held. All of that has to come
 * back, and nothing else.
 */
#define _GNU_SOURCE
#include "shared.h"
#include "trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { KEYS = 7, LIMIT = 5, HANDS = 4 };

static const neap_ns SECOND = 1000000000, PATIENCE = INT64_C(60000000000);

static void *memory(size_t size)
{
	void *all = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		trial_fail("no memory");
	return all;
}

/* ---- a way to the keys ---- */

struct way {
	struct neap_engine *engine;
	struct neap_segment *segment;
	struct neap_keyed *keyed;
	struct neap_limiter limiter;
	struct neap_term term;
	struct neap_all all;
};

static void join(struct way *w, int64_t limit, int64_t keys_max, int full)
{
	struct neap_limiter like = shared_like(NEAP_SEMAPHORE, limit);
	w->engine = neap_engine_open(10, neap_loop_now(NULL));
	w->segment = shared_open(NULL);
	w->keyed = shared_keyed(w->segment, "permits", &like, keys_max, full, 0);
	w->limiter = (struct neap_limiter){.kind = NEAP_KEYED, .as.keyed = w->keyed};
	w->term = (struct neap_term){&w->limiter, 1, 0, 0};
	if (neap_all_init(&w->all, &w->term, 1))
		trial_fail("no such all");
}

static void part(struct way *w)
{
	neap_engine_close(w->engine);
	neap_keyed_close(w->keyed);
	neap_segment_close(w->segment);
}

static struct neap_request request(const struct way *w, int64_t key, int64_t cost)
{
	return (struct neap_request){.all = &w->all, .cost = {cost}, .key = {shared_key(key)},
				     .deadline = neap_loop_now(NULL) + PATIENCE};
}

static int try(const struct way *w, int64_t key, int64_t cost)
{
	struct neap_request r = request(w, key, cost);
	struct neap_answer a;
	neap_engine_try(w->engine, &r, neap_loop_now(NULL), &a);
	return a.status;
}

static void give(const struct way *w, int64_t key, int64_t cost)
{
	struct neap_request r = request(w, key, cost);
	neap_engine_give(w->engine, &r, NEAP_SUCCESS, 0, neap_loop_now(NULL));
}

static int64_t out(const struct way *w, int64_t key)
{
	return neap_keyed_word(w->keyed, shared_key(key), 0);
}

/* ---- permits ---- */

/* What a child says of itself. 'may' is written before a take, 'has' after it; and so on. */
struct hand { int64_t may[KEYS], has[KEYS], steps; };

static void take_and_give(struct dice *d, struct hand *h)
{
	struct way w;
	join(&w, LIMIT, KEYS * HANDS, NEAP_REFUSE);
	for (;; h->steps++) {
		int64_t key = dice_between(d, 0, KEYS - 1), cost = dice_between(d, 1, 2);
		if (dice_between(d, 0, 1)) {
			h->may[key] += cost;
			if (try(&w, key, cost) == NEAP_GRANTED)
				h->has[key] += cost;
			else
				h->may[key] -= cost;
		} else if (h->has[key] >= cost) {
			h->has[key] -= cost;
			give(&w, key, cost);
			h->may[key] -= cost;
		}
	}
}

static void check_out(const struct way *w, const struct hand *hand, const char *what)
{
	for (int64_t key = 0; key < KEYS; key++) {
		int64_t least = 0, most = 0, is = out(w, key);
		for (int i = 0; i < HANDS; i++) {
			least += hand[i].has[key];
			most += hand[i].may[key];
		}
		if (is < least || is > most || is > LIMIT)
			trial_fail("%s: %ld out, not %ld to %ld", what, is, least, most);
	}
}

/* All are stopped by death, so what they say stands still; then they are given back one by one. */
static void come_back(struct dice *d)
{
	struct hand *hand = memory(HANDS * sizeof *hand);
	struct way w;
	shared_fresh(0);
	join(&w, LIMIT, KEYS * HANDS, NEAP_REFUSE);
	for (int64_t rounds = trial_ops(20); rounds > 0; rounds--) {
		pid_t pid[HANDS];
		memset(hand, 0, HANDS * sizeof *hand);
		for (int i = 0; i < HANDS; i++) {
			struct dice own = {dice_throw(d)};
			pid[i] = shared_fork();
			if (!pid[i])
				take_and_give(&own, &hand[i]);
		}
		for (int i = 0; i < HANDS; i++)
			while (__atomic_load_n(&hand[i].steps, __ATOMIC_RELAXED) < 20)
				usleep(100);
		usleep((useconds_t)dice_between(d, 0, 3000));
		for (int i = 0; i < HANDS; i++)
			shared_kill(pid[i]);
		check_out(&w, hand, "after all died");
		int64_t sum = 0;
		for (int64_t key = 0; key < KEYS; key++)
			sum += out(&w, key);
		shared_told("reap", neap_segment_reap(w.segment), sum);
		memset(hand, 0, HANDS * sizeof *hand);
		check_out(&w, hand, "after all came back");
		shared_whole(w.segment);
	}
	shared_told("alive", neap_keyed_count(w.keyed, 1), 0);
	part(&w);
	unlink(shared_path());
	munmap(hand, HANDS * sizeof *hand);
}

/* Who gives back more than it has, or what others have, changes nothing. */
static void only_the_own(struct dice *d)
{
	struct way w;
	int go[2];
	char byte;
	(void)d;
	shared_fresh(0);
	join(&w, LIMIT, 2, NEAP_REFUSE);
	if (pipe(go))
		trial_fail("no pipe");
	pid_t child = shared_fork();
	if (!child) {
		struct way c;
		join(&c, LIMIT, 2, NEAP_REFUSE);
		int status = try(&c, 1, 3);
		if (write(go[1], "x", 1) != 1 || status != NEAP_GRANTED)
			_exit(1);
		pause();
	}
	if (read(go[0], &byte, 1) != 1)
		trial_fail("the child took nothing");
	give(&w, 1, 3);
	shared_told("of others", out(&w, 1), 3);
	shared_told("a swap of others'", neap_keyed_swap(w.keyed, shared_key(1), 0, 3, 2), NEAP_ERANGE);
	shared_told("two more", try(&w, 1, 2), NEAP_GRANTED);
	shared_told("one too many", try(&w, 1, 1), NEAP_REFUSED);
	shared_told("no entry for another", try(&w, 2, 1), NEAP_SHED);
	shared_told("keys", neap_keyed_count(w.keyed, 1), 1);
	give(&w, 1, 5);
	shared_told("more than it has", out(&w, 1), 3);
	shared_told("one of its own", neap_keyed_swap(w.keyed, shared_key(1), 0, 3, 4), 1);
	shared_told("which it gives back", neap_keyed_swap(w.keyed, shared_key(1), 0, 4, 3), 1);
	shared_told("not what it was", neap_keyed_swap(w.keyed, shared_key(1), 0, 4, 5), 0);
	shared_kill(child);
	shared_told("reap", neap_segment_reap(w.segment), 3);
	shared_told("again", neap_segment_reap(w.segment), 0);
	shared_told("all", try(&w, 1, LIMIT), NEAP_GRANTED);
	struct neap_limiter more = shared_like(NEAP_SEMAPHORE, LIMIT + 2);
	shared_told("a change", neap_keyed_change(w.keyed, &more, NEAP_KEEP_SPENT, 1), 0);
	shared_told("what it adds", try(&w, 1, 2), NEAP_GRANTED);
	shared_told("no more", try(&w, 1, 1), NEAP_REFUSED);
	more = shared_like(NEAP_SEMAPHORE, INT64_C(1) << 48);
	shared_told("more than a word counts", neap_keyed_change(w.keyed, &more, NEAP_KEEP_SPENT, 1),
		    NEAP_ERANGE);
	shared_whole(w.segment);
	part(&w);
	unlink(shared_path());
}

/* ---- bare words ---- */

static struct neap_keyed *words(struct neap_segment *s, int full)
{
	struct neap_limiter like = {.kind = NEAP_PAUSE};
	neap_pause_init(&like.as.pause);
	return shared_keyed(s, "words", &like, 4, full, 0);
}

static void swap_for_ever(struct hand *h, int64_t key)
{
	struct neap_keyed *k = words(shared_open(NULL), NEAP_REFUSE);
	int64_t is = 0;
	for (;; h->steps++) {
		h->may[0]++;
		do
			is = neap_keyed_word(k, shared_key(key), 0);
		while (neap_keyed_swap(k, shared_key(key), 0, is, is + 1) != 1);
		h->has[0]++;
	}
}

static void no_swap_is_lost(struct dice *d)
{
	struct hand *hand = memory(HANDS * sizeof *hand);
	struct neap_segment *s = shared_fresh(0);
	struct neap_keyed *k = words(s, NEAP_REFUSE);
	for (int64_t round = 0, rounds = trial_ops(20), was = 0; round < rounds; round++) {
		int64_t key = dice_between(d, 0, 3), least = 0, most = 0;
		pid_t pid[HANDS];
		memset(hand, 0, HANDS * sizeof *hand);
		was = neap_keyed_word(k, shared_key(key), 0);
		for (int i = 0; i < HANDS; i++) {
			pid[i] = shared_fork();
			if (!pid[i])
				swap_for_ever(&hand[i], key);
		}
		for (int i = 0; i < HANDS; i++)
			while (__atomic_load_n(&hand[i].steps, __ATOMIC_RELAXED) < 20)
				usleep(100);
		for (int i = 0; i < HANDS; i++)
			shared_kill(pid[i]);
		for (int i = 0; i < HANDS; i++) {
			least += hand[i].has[0];
			most += hand[i].may[0];
		}
		int64_t is = neap_keyed_word(k, shared_key(key), 0) - was;
		if (is < least || is > most)
			trial_fail("%ld swaps, not %ld to %ld", is, least, most);
		shared_whole(s);
	}
	neap_keyed_close(k);
	neap_segment_close(s);
	unlink(shared_path());
	munmap(hand, HANDS * sizeof *hand);
}

/* The same in a segment and on the heap: 4 keys are alive at most. */
static void words_end_and_are_forgotten(struct dice *d)
{
	const uint8_t secret[16] = {1};
	struct neap_limiter like = {.kind = NEAP_PAUSE};
	for (int64_t worlds = trial_ops(100); worlds > 0; worlds--) {
		int full = (int)dice_between(d, NEAP_REFUSE, NEAP_LEAST_RECENT);
		struct neap_segment *s = shared_fresh(0);
		struct neap_keyed *k[2] = {words(s, full), neap_keyed_open(&like, 4, full, 0, secret)};
		int64_t clock = 0;
		for (int steps = 0; steps < 300; steps++) {
			int64_t key = dice_between(d, 0, 8), from[2], to = clock + dice_between(d, 0, 9);
			int status[2];
			clock += dice_between(d, 0, 2) == 0;
			for (int i = 0; i < 2; i++) {
				from[i] = neap_keyed_word(k[i], shared_key(key), clock);
				status[i] = neap_keyed_swap(k[i], shared_key(key), clock,
							    from[i] + (steps % 9 == 0), to);
			}
			if (from[0] != from[1] || status[0] != status[1])
				trial_fail("%ld and %d in the segment, %ld and %d on the heap", from[0],
					   status[0], from[1], status[1]);
		}
		shared_whole(s);
		neap_keyed_close(k[0]);
		neap_keyed_close(k[1]);
		neap_segment_close(s);
	}
	unlink(shared_path());
}

/* ---- those who wait ---- */

enum { PLAIN, KEYED, CONDITIONAL };

/* What a holder has taken is to come back to a thread that waits, without a word from anybody. */
static void wait_for_a_death(int how)
{
	struct way w;
	int go[2];
	char byte;
	shared_fresh(0);
	join(&w, LIMIT, 8, NEAP_REFUSE);
	struct neap_term plain = {shared_add(w.segment, "plain", NEAP_SEMAPHORE, LIMIT), 1, 0, 0};
	struct neap_pause never;
	neap_pause_init(&never);
	struct neap_limiter limiter;
	struct neap_conditional c = {plain.limiter, {&never, NULL}, 1, 1};
	if (neap_conditional_init(&limiter, &c))
		trial_fail("no such limiter");
	struct neap_term conditional = {&limiter, 1, 0, 0};
	struct neap_all other, if_paused;
	neap_all_init(&other, &plain, 1);
	neap_all_init(&if_paused, &conditional, 1);
	if (pipe(go))
		trial_fail("no pipe");
	pid_t holder = shared_fork();
	if (!holder) {
		if (try(&w, 1, LIMIT) != NEAP_GRANTED ||
		    neap_all_take(&other, (const int64_t[NEAP_COSTS]){LIMIT}, 1, NULL) != 1 ||
		    write(go[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	if (read(go[0], &byte, 1) != 1)
		trial_fail("the holder took nothing");
	neap_ns *died = memory(sizeof *died);
	pid_t killer = shared_fork();
	if (!killer) {
		usleep(300000);
		*died = neap_loop_now(NULL);
		/* it is no child of this one: its parent's */
		char command[32];
		snprintf(command, sizeof command, "kill -9 %d", holder);
		_exit(system(command) != 0);
	}
	struct neap_request r = request(&w, 1, 1);
	struct neap_bell bell = {0, 0};
	struct neap_answer a;
	r.all = how == KEYED ? &w.all : how == CONDITIONAL ? &if_paused : &other;
	if (neap_wait(w.engine, &r, &bell, &a) || a.status != NEAP_GRANTED)
		trial_fail("it is not granted");
	neap_ns took = neap_loop_now(NULL) - *died;
	shared_told("the killer", shared_wait(killer), 0);
	shared_wait(holder);
	if (took > 10 * SECOND)   /* half a second, and however long this machine is busy */
		trial_fail("it took %ld ns", took);
	munmap(died, sizeof *died);
	part(&w);
	unlink(shared_path());
}

static void wait_for_a_holder(struct dice *d) { (void)d; wait_for_a_death(PLAIN); }

static void wait_for_a_key(struct dice *d) { (void)d; wait_for_a_death(KEYED); }

static void wait_for_a_condition(struct dice *d) { (void)d; wait_for_a_death(CONDITIONAL); }

/* ---- one mapping ---- */

static int mappings(void)
{
	char line[512];
	int count = 0;
	FILE *maps = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof line, maps))
		count += strstr(line, shared_path()) != NULL;
	fclose(maps);
	return count;
}

static void mapped_once(struct dice *d)
{
	const struct neap_segment_options inspect = {.how = NEAP_INSPECT};
	(void)d;
	int before = mappings();
	struct neap_segment *s = shared_fresh(0);
	for (int i = 0; i < 10; i++)
		if (shared_open(NULL) != s)
			trial_fail("it is another");
	shared_told("mappings", mappings() - before, 1);
	struct neap_segment *look = shared_open(&inspect);
	shared_told("with one that does not write", mappings() - before, 2);
	neap_segment_close(look);
	for (int i = 0; i < 10; i++)
		neap_segment_close(s);
	shared_add(s, "still", NEAP_SEMAPHORE, 1);
	shared_told("as before", mappings() - before, 1);
	struct neap_segment *fresh = shared_fresh(0);   /* the same name, and another file */
	if (fresh == s || neap_segment_find(fresh, "still"))
		trial_fail("a file that was removed is opened");
	neap_segment_close(fresh);
	neap_segment_close(s);
	shared_told("after the last", mappings() - before, 0);
	unlink(shared_path());
}

/* What is out when it closes is out; it takes no second record for that. */
static void held_while_closed(struct dice *d)
{
	struct way w;
	(void)d;
	neap_segment_close(shared_fresh(0));
	for (int64_t i = 1; i <= LIMIT; i++) {
		struct neap_segment_stats stats;
		join(&w, LIMIT, 2, NEAP_REFUSE);
		shared_told("taken", try(&w, 1, 1), NEAP_GRANTED);
		shared_told("out", out(&w, 1), i);
		neap_segment_stats(w.segment, &stats);
		shared_told("records", stats.processes, 1);
		part(&w);
	}
	join(&w, LIMIT, 2, NEAP_REFUSE);
	give(&w, 1, LIMIT);
	shared_told("given back", out(&w, 1), 0);
	shared_whole(w.segment);
	part(&w);
	unlink(shared_path());
}

int main(void)
{
	trial_run("permits of a key come back, whoever is killed", come_back);
	trial_run("a process gives back what it has itself", only_the_own);
	trial_run("no swap is lost, and none is half done", no_swap_is_lost);
	trial_run("words end and make room as on the heap", words_end_and_are_forgotten);
	trial_run("who waits for permits of a process that dies has them", wait_for_a_holder);
	trial_run("so does who waits for those of a key", wait_for_a_key);
	trial_run("and who waits for them while a pause is on, or is not", wait_for_a_condition);
	trial_run("a process maps a file once", mapped_once);
	trial_run("a process that opens it again has what it held", held_while_closed);
	return trial_verdict();
}
