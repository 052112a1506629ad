/* SPDX-License-Identifier: MIT */
/* segment_torture.c - eight processes at one segment, that end before any write, or stand still.
 *
 * They attach, take, settle, give back and keep permits, ask for other configurations, look after
 * the dead and leave; and each ends by itself, or stops for a while, before a write to the segment
 * that dice choose (fault.h). After each death the others come to rest between two calls, and then
 * all is exact: limiters have spent what the living and the dead were told, and of the call under
 * way all or nothing, limiter by limiter. For each tells itself, in memory of its own beside it,
 * what it is about to do and what came of it.
 *
 * Exact is also that a rate grants no more than burst + rate x time: the clock is a count of the
 * calls, a ns each, in which next to nothing flows back; and when all are at rest it jumps, and
 * then all has flowed back. Of the permits only those of the living are out.
 *
 * The patience with a word that is held is a thousandth of what it is elsewhere (word.c), so that
 * even a short stop makes one that holds a word lose it.
 *
 *     NEAP_SECONDS=60   how long; a second in the suite
 */
#define _GNU_SOURCE
#include "fault.h"
#include "segment.h"
#include "shared.h"
#include "trial.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What is asked: a term each. Those from WILD on are not counted: held, tripped, and whole. */
enum { PERMITS, FOUND, RATE, TOKENS, LOG, BREAKER, KEYS, WILD, TERMS = WILD + 3 };
/* What is counted: the first five as above, outcomes, and each key. */
enum { CALLS = LOG + 1, FAILURES, KEY, KEYS_USED = 5, SUMS = KEY + KEYS_USED };

enum { SEATS = 8, PATIENCE_S = 60 };

static const neap_ns JUMP = INT64_C(20000000000);
static const int kinds[TERMS] = {
	NEAP_SEMAPHORE, NEAP_ADAPTIVE, NEAP_GCRA, NEAP_GCRA, NEAP_WINDOW, NEAP_BREAKER, NEAP_KEYED,
	NEAP_GCRA, NEAP_WINDOW, NEAP_BREAKER,
};
static const char *const names[TERMS] = {
	"permits", "found", "rate", "tokens", "log", "breaker", "keys",
	"a rate", "a log", "a breaker",
};

struct seat {
	pid_t pid;
	int32_t rests;            /* between two calls, until 'gate' is open */
	int32_t dead;
	neap_ns wakes;            /* stopped until then; 0: it is not */
	int64_t told[SUMS];
	int64_t doing[SUMS];      /* what the call under way adds, or not */
};

static struct stage {
	struct seat seat[SEATS];
	int32_t gate;             /* 1: all come to rest */
	neap_ns clock;
	int64_t base[SUMS];       /* of those who are gone */
} *stage;

static struct neap_segment *segment;
static struct neap_limiter *limiter[TERMS], keyed_term;
static struct neap_keyed *keyed;
static struct neap_engine *engine;

static neap_ns tick(int64_t ns) { return __atomic_add_fetch(&stage->clock, ns, __ATOMIC_RELAXED); }

static neap_ns real_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void nap(int64_t ns) { nanosleep(&(struct timespec){0, ns}, NULL); }

/* ---- the limiters ---- */

/* One way or another: 'n' is 0 or 1. */
static struct neap_limiter like_of(int term, int64_t n)
{
	struct neap_limiter l;
	switch (term) {
	case PERMITS: return shared_like(NEAP_SEMAPHORE, 9);
	case FOUND: return shared_like(NEAP_ADAPTIVE, 9 + n);
	case RATE: case TOKENS: case KEYS:
		return shared_rate(100 + n * 50, 1000000000, 1000000 << n);
	case LOG: return shared_like(NEAP_WINDOW, 150 + n * 50);
	case BREAKER:   /* that never opens */
		l = shared_like(NEAP_BREAKER, 1000000);
		l.as.breaker.cooldown_ns += n;
		return l;
	default: return shared_like(kinds[term], 5 + n);
	}
}

static void attach(void)
{
	const struct neap_segment_options options = {.processes_max = SEATS + 1};
	segment = shared_open(&options);
	engine = neap_engine_open(1, tick(1));
	for (int t = 0; t < TERMS; t++) {
		struct neap_limiter like = like_of(t, 0);
		if (t == KEYS && neap_segment_keyed(segment, names[t], &like, KEYS_USED, NEAP_REFUSE,
						    NEAP_KEEP_SPENT, 1, tick(1), &keyed) < 0)
			trial_fail("no keys");
		if (t != KEYS && neap_segment_add(segment, names[t], &like, NEAP_KEEP_SPENT, 1,
						  tick(1), &limiter[t]) < 0)
			trial_fail("no %s", names[t]);
	}
	keyed_term = (struct neap_limiter){.kind = NEAP_KEYED, .as.keyed = keyed};
	limiter[KEYS] = &keyed_term;
}

static void leave(void)
{
	neap_keyed_close(keyed);
	neap_engine_close(engine);
	neap_segment_close(segment);
}

/* ---- one of the eight ---- */

static void over(struct seat *own, int made)
{
	for (int i = 0; i < SUMS; i++) {
		own->told[i] += made ? own->doing[i] : 0;
		own->doing[i] = 0;
	}
}

/* It may be that so much is added to what these terms count. */
static void under_way(struct seat *own, unsigned terms, int key, int64_t cost)
{
	for (int t = PERMITS; t <= LOG; t++)
		own->doing[t] = terms & 1u << t ? cost : 0;
	own->doing[KEY + key] = terms & 1u << KEYS ? cost : 0;
}

static int any_terms(struct dice *d, unsigned which, struct neap_term *term)
{
	int count = 0, first = (int)dice_between(d, 0, TERMS - 1);
	for (int i = 0, t = first; i < TERMS; i++, t = (t + 1) % TERMS)
		if (which & 1u << t)
			term[count++] = (struct neap_term){limiter[t], 1, 0, 0};
	return count;
}

static void end_call(struct dice *d, struct seat *own, unsigned terms,
		     const struct neap_request *r, neap_ns at)
{
	int outcome = (int)dice_between(d, NEAP_SUCCESS, NEAP_IGNORE);
	if (!r->cost[0])
		return;
	under_way(own, terms & (1u << PERMITS | 1u << FOUND), 0, -r->cost[0]);
	if (terms & 1u << BREAKER && outcome != NEAP_IGNORE) {
		own->doing[CALLS] = 1;
		own->doing[FAILURES] = outcome == NEAP_FAILURE;
	}
	neap_engine_give(engine, r, outcome, at, tick(1));
	over(own, 1);
}

static void call(struct dice *d, struct seat *own)
{
	struct neap_term term[TERMS];
	struct neap_all all;
	struct neap_answer a;
	unsigned terms = (unsigned)dice_between(d, 1, (1 << TERMS) - 1);
	int key = (int)dice_between(d, 0, KEYS_USED - 1);
	int64_t cost = dice_between(d, 1, 3), used = dice_between(d, 0, cost);
	if (dice_between(d, 0, 3))   /* mostly few, and seldom those that refuse */
		terms &= (unsigned)dice_between(d, 1, (1 << WILD) - 1);
	neap_all_init(&all, term, any_terms(d, terms, term));
	struct neap_request r = {.all = &all, .cost = {cost}, .key = {shared_key(key)}};
	neap_ns at = tick(1);
	under_way(own, terms, key, cost);
	neap_engine_try(engine, &r, at, &a);
	over(own, a.status == NEAP_GRANTED);
	if (a.status != NEAP_GRANTED)
		return;
	if (dice_between(d, 0, 1)) {
		under_way(own, terms, key, used - cost);
		neap_engine_settle(engine, &r, (const int64_t[NEAP_COSTS]){used}, at, tick(1));
		over(own, 1);
		r.cost[0] = used;
	}
	if (terms & ((1u << BREAKER) - 1) && !(terms >> WILD) && !dice_between(d, 0, 4))
		return;   /* its permits are kept */
	end_call(d, own, terms, &r, at);
}

static void give_kept(struct seat *own, int64_t most)
{
	for (int t = PERMITS; t <= FOUND; t++) {
		int64_t some = own->told[t] < most ? own->told[t] : most;
		if (some <= 0)
			continue;
		own->doing[t] = -some;
		neap_limiter_give(limiter[t], some, NEAP_SUCCESS, tick(1), tick(1));
		over(own, 1);
	}
}

/* Something other than a call. */
static void meddle(struct dice *d, struct seat *own)
{
	int t = (int)dice_between(d, 0, TERMS - 1);
	struct neap_limiter like = like_of(t, dice_between(d, 0, 1)), *l;
	int64_t what = dice_between(d, 0, 9);
	if (what == 0) {
		give_kept(own, INT64_MAX);
		leave();
		attach();
		fault_watch(segment->header, (size_t)segment->header->bytes);
	} else if (what == 1) {
		neap_limiter_hold(limiter[WILD], dice_between(d, 1, 4), tick(1) + 1000, tick(1));
		neap_limiter_hold(limiter[WILD + 1], dice_between(d, 1, 4), tick(1) + 1000, tick(1));
	} else if (what < 4) {
		neap_segment_reap(segment);
	} else if (what < 7) {
		give_kept(own, dice_between(d, 1, 9));
	} else if (t == KEYS) {
		neap_keyed_change(keyed, &like, NEAP_KEEP_SPENT, tick(1));
	} else {
		neap_segment_add(segment, names[t], &like, NEAP_KEEP_SPENT, 0, tick(1), &l);
	}
}

static void rest(struct seat *own)
{
	__atomic_store_n(&own->rests, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&stage->gate, __ATOMIC_ACQUIRE))
		nap(50000);
	__atomic_store_n(&own->rests, 0, __ATOMIC_RELEASE);
}

_Noreturn static void live(uint64_t seed, struct seat *own)
{
	struct dice d = {seed};
	for (int calls = 0;; calls++) {
		if (__atomic_load_n(&stage->gate, __ATOMIC_ACQUIRE))
			rest(own);
		if (calls == 0)
			attach();
		fault_watch(segment->header, (size_t)segment->header->bytes);
		if (!dice_between(&d, 0, 15))
			fault_before(dice_any_size(&d, 1, 300),
				     dice_between(&d, 0, 2) ? SIGKILL : SIGSTOP);
		if (dice_between(&d, 0, 7))
			call(&d, own);
		else
			meddle(&d, own);
	}
}

/* ---- the one who looks after them ---- */

static void start(struct dice *d, struct seat *s)
{
	uint64_t seed = dice_throw(d);
	*s = (struct seat){0};
	pid_t pid = shared_fork();
	if (!pid)
		live(seed, s);
	s->pid = pid;
}

static struct seat *seat_of(pid_t pid)
{
	for (int i = 0; i < SEATS; i++)
		if (stage->seat[i].pid == pid)
			return &stage->seat[i];
	trial_fail("a stranger");
}

/* Who has stopped is woken after a while, mostly a short one; who has died is noted. How many. */
static int look(struct dice *d)
{
	int status, deaths = 0;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WUNTRACED | WNOHANG)) > 0) {
		struct seat *s = seat_of(pid);
		if (WIFSTOPPED(status)) {
			s->wakes = real_now() + dice_any_size(d, 1, 50000000);
			continue;
		}
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			trial_fail("one ended by itself: status %x", (unsigned)status);
		s->dead = 1;
		deaths++;
	}
	for (struct seat *s = stage->seat; s < stage->seat + SEATS; s++)
		if (!s->dead && s->wakes && s->wakes <= real_now()) {
			s->wakes = 0;
			kill(s->pid, SIGCONT);
		}
	return deaths;
}

static void let_all_rest(struct dice *d)
{
	neap_ns until = real_now() + PATIENCE_S * INT64_C(1000000000);
	__atomic_store_n(&stage->gate, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < SEATS;) {
		struct seat *s = &stage->seat[i];
		if (s->dead || __atomic_load_n(&s->rests, __ATOMIC_ACQUIRE)) {
			i++;
			continue;
		}
		look(d);
		nap(20000);
		if (real_now() > until)
			trial_fail("somebody does not come to rest");
	}
}

static int64_t spent(const struct neap_limiter *l, neap_ns now)
{
	return neap_limiter_capacity(l) - neap_limiter_available(l, now);
}

static void measure(int64_t *sum)
{
	neap_ns now = tick(1000);   /* so that what changes of rates round up has flowed back */
	sum[PERMITS] = limiter[PERMITS]->as.semaphore.in_use;
	sum[FOUND] = limiter[FOUND]->as.adaptive.in_use;
	sum[RATE] = spent(limiter[RATE], now);
	sum[TOKENS] = spent(limiter[TOKENS], now);
	sum[LOG] = limiter[LOG]->as.window.used;
	sum[CALLS] = limiter[BREAKER]->as.breaker.seen;
	sum[FAILURES] = limiter[BREAKER]->as.breaker.failed;
	for (int i = 0; i < KEYS_USED; i++) {
		struct neap_limiter l;
		int status = neap_keyed_look(keyed, shared_key(i), now, &l);
		sum[KEY + i] = status ? 0 : spent(&l, now);
	}
}

/* Is it the sum of some of what the dead, from this one on, were at? */
static int is_some(const struct seat *s, int sum, int64_t rest_of)
{
	for (; s < stage->seat + SEATS; s++)
		if (s->dead && s->doing[sum])
			return is_some(s + 1, sum, rest_of) ||
			       is_some(s + 1, sum, rest_of - s->doing[sum]);
	return rest_of == 0;
}

static void prove_sum(int sum, int64_t is)
{
	int64_t living = 0, dead = stage->base[sum];
	for (struct seat *s = stage->seat; s < stage->seat + SEATS; s++) {
		living += s->dead ? 0 : s->told[sum];
		dead += s->dead && sum > FOUND ? s->told[sum] : 0;
	}
	if (sum <= FOUND ? is != living : !is_some(stage->seat, sum, is - living - dead))
		trial_fail("sum %d is %ld; the living were told %ld, the dead %ld", sum, is,
			   living, dead);
	stage->base[sum] = sum <= FOUND ? 0 : is - living;
}

/* Let all flow back: nothing is spent then but permits. */
static void jump(void)
{
	int64_t sum[SUMS];
	neap_ns now = tick(JUMP);
	neap_limiter_give(limiter[BREAKER], 1, NEAP_SUCCESS, now, now);
	neap_limiter_take(limiter[LOG], 1, now);
	neap_limiter_settle(limiter[LOG], 1, 0, now, now);
	measure(sum);
	for (int i = RATE; i < SUMS; i++) {
		if (sum[i] != (i == CALLS))
			trial_fail("sum %d is %ld long after", i, sum[i]);
		stage->base[i] = sum[i];
		for (int n = 0; n < SEATS; n++)
			stage->seat[n].told[i] = 0;
	}
}

static void prove(struct dice *d)
{
	int64_t sum[SUMS];
	struct neap_segment_stats stats;
	shared_whole(segment);
	neap_segment_reap(segment);
	shared_whole(segment);
	neap_segment_stats(segment, &stats);
	for (int i = 0; i < SEATS; i++)
		stats.processes -= !stage->seat[i].dead;
	if (stats.processes > 0)
		trial_fail("%ld records are of nobody", stats.processes);
	measure(sum);
	for (int i = 0; i < SUMS; i++)
		prove_sum(i, sum[i]);
	if (sum[LOG] > 50 || !dice_between(d, 0, 7))
		jump();
}

static void open_stage(void)
{
	unlink(shared_path());
	stage = mmap(NULL, sizeof *stage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	stage->clock = JUMP;
	attach();
	jump();   /* and the log has been used, so it knows who is late */
}

static void tortured(struct dice *d)
{
	open_stage();
	int64_t deaths = 0;
	neap_ns until = real_now() + (neap_ns)(trial_seconds() * 1e9), worst = 0;
	for (int i = 0; i < SEATS; i++)
		start(d, &stage->seat[i]);
	while (real_now() < until || deaths < 20) {
		nap(100000);
		if (!look(d))
			continue;
		neap_ns since = real_now();
		let_all_rest(d);
		worst = real_now() - since > worst ? real_now() - since : worst;
		prove(d);
		for (int i = 0; i < SEATS; i++)
			if (stage->seat[i].dead) {
				deaths++;
				start(d, &stage->seat[i]);
			}
		__atomic_store_n(&stage->gate, 0, __ATOMIC_RELEASE);
	}
	for (int i = 0; i < SEATS; i++)
		shared_kill(stage->seat[i].pid);
	printf("# %ld deaths; the longest wait for all was %ld ms\n", deaths, worst / 1000000);
	leave();
	munmap(stage, sizeof *stage);
}

int main(void)
{
	trial_run("before whatever write they die or stop, all that others see is exact", tortured);
	return trial_verdict();
}
