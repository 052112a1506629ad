/* SPDX-License-Identifier: MIT */
/* property_booking.c - bookings, against a provider who only sees the calls.
 *
 * Calls are taken, booked and undone at random over two rates, a window and permits. The provider
 * has buckets of its own and a diary of what really came, at the instant for which it was booked and
 * without what was undone: nothing may ever be too much for it. And each booking is for the very
 * first instant, what is undone leaves no trace, and nobody else is sent away for its sake.
 */
#include "bucket.h"
#include "diary.h"
#include "neap.h"
#include "trial.h"

#include <string.h>

enum { FAST, SLOW, WINDOW, PERMITS, LIMITERS };
enum { BOOKED_MOST = 64 };

struct booked {
	struct neap_request request;
	neap_ns at;
	struct neap_booking *booking;
};

struct scene {
	struct neap_limiter limiter[LIMITERS];
	struct neap_stamp log[64];
	struct neap_term term[LIMITERS];
	struct neap_all all;
	struct neap_engine *engine;
	struct bucket bucket[2];
	struct diary diary;
	struct booked booked[BOOKED_MOST];
	int count;
	neap_ns now;
};

static void open_scene(struct scene *s, struct dice *d)
{
	memset(s, 0, sizeof *s);
	for (int i = 0; i < 2; i++) {
		int64_t amount = dice_between(d, 1, 9), burst = dice_between(d, 1, 12);
		neap_ns period = dice_between(d, 2, i == FAST ? 50 : 200);
		s->limiter[i].kind = NEAP_GCRA;
		if (neap_gcra_init(&s->limiter[i].as.gcra, amount, period, burst))
			trial_fail("gcra refused");
		s->bucket[i] = bucket_ticking(amount, period, burst, s->limiter[i].as.gcra.shift);
	}
	s->limiter[WINDOW].kind = NEAP_WINDOW;
	int64_t limit = dice_between(d, 1, 20);
	neap_ns window = dice_between(d, 1, 200);
	if (neap_window_init(&s->limiter[WINDOW].as.window, limit, window, s->log, 64))
		trial_fail("window refused");
	diary_init(&s->diary, limit, window, DIARY_PAGES);
	s->limiter[PERMITS].kind = NEAP_SEMAPHORE;
	neap_semaphore_init(&s->limiter[PERMITS].as.semaphore, dice_between(d, 1, 30), 0);
	for (int i = 0; i < LIMITERS; i++)
		s->term[i] = (struct neap_term){&s->limiter[i], 1, i, 0};
	neap_all_init(&s->all, s->term, LIMITERS);
	s->now = 1000;
	s->engine = neap_engine_open(8, s->now);
}

static void close_scene(struct scene *s)
{
	if (neap_engine_check(s->engine))
		trial_fail("the engine is corrupt");
	neap_engine_close(s->engine);
}

static void call_comes(struct scene *s, const struct neap_request *r, neap_ns at)
{
	for (int i = 0; i < 2; i++) {
		if (bucket_tokens(&s->bucket[i], at) < r->cost[i])
			trial_fail("rate %d: %lld at %lld is too much", i, (long long)r->cost[i],
				   (long long)at);
		bucket_take(&s->bucket[i], r->cost[i], at);
	}
	if (r->cost[WINDOW])
		diary_take(&s->diary, r->cost[WINDOW], at);
	if (diary_fullest_span(&s->diary) > s->diary.limit)
		trial_fail("window: too much at %lld", (long long)at);
}

static void drop(struct scene *s, int i)
{
	memmove(&s->booked[i], &s->booked[i + 1], (size_t)(--s->count - i) * sizeof s->booked[0]);
}

/* Time passes, and those who booked come. */
static void pass(struct scene *s, neap_ns to)
{
	for (;;) {
		int first = -1;
		for (int i = 0; i < s->count; i++)
			if (s->booked[i].at <= to &&
			    (first < 0 || s->booked[i].at < s->booked[first].at))
				first = i;
		if (first < 0)
			break;
		struct booked b = s->booked[first];
		drop(s, first);
		call_comes(s, &b.request, b.at);
		neap_engine_unbook(s->engine, b.booking, b.at);
		neap_engine_give(s->engine, &b.request, NEAP_SUCCESS, b.at, b.at);
	}
	s->now = to;
	neap_engine_advance(s->engine, to);
}

static struct neap_request any_request(struct scene *s, struct dice *d)
{
	struct neap_request r = {.all = &s->all};
	int some = (int)dice_between(d, 1, 15);
	for (int i = 0; i < LIMITERS; i++)
		r.cost[i] = some >> i & 1 ? dice_between(d, 1, 6) : 0;
	return r;
}

/* Is it refused only because it is too far ahead? Then it is granted when that is over. */
static void refused(struct scene *s, const struct neap_request *r, neap_ns when,
		    const struct neap_answer *a)
{
	if (a->at >= when || when >= neap_horizon)
		return;
	struct neap_answer again;
	neap_ns at = a->at;
	for (int i = 0; i < s->count; i++)
		if (s->booked[i].at <= at)
			return;   /* it will not be the same then */
	pass(s, at - 1);
	neap_engine_book(s->engine, r, neap_never, s->now, &again);
	if (again.status == NEAP_GRANTED)
		trial_fail("booked before it could be");
	pass(s, at);
	struct neap_booking *b = neap_engine_book(s->engine, r, neap_never, s->now, &again);
	if (again.status != NEAP_GRANTED || again.at != when)
		trial_fail("told to come back, and %d for %lld, not %lld", again.status,
			   (long long)again.at, (long long)when);
	if (b)
		neap_engine_unbook(s->engine, b, s->now);
	else
		neap_engine_settle(s->engine, r, (const int64_t[NEAP_COSTS]){0}, s->now, s->now);
}

static void book(struct scene *s, struct dice *d)
{
	struct booked *b = &s->booked[s->count];
	struct neap_limiter was[LIMITERS];
	struct neap_answer a;
	b->request = any_request(s, d);
	neap_ns when = neap_all_when(&s->all, b->request.cost, s->now, NULL);
	neap_ns latest = dice_between(d, 0, 3) ? neap_never : s->now + dice_between(d, 0, 50);
	memcpy(was, s->limiter, sizeof was);
	b->booking = neap_engine_book(s->engine, &b->request, latest, s->now, &a);
	if (a.status != NEAP_GRANTED) {
		if ((a.status == NEAP_NEVER) != (when == neap_never))
			trial_fail("status %d of what is due at %lld", a.status, (long long)when);
		if (when <= s->now || (when <= latest && when < neap_horizon && a.at > when))
			trial_fail("refused till %lld though free", (long long)a.at);
		if (a.status == NEAP_REFUSED && latest == neap_never)
			refused(s, &b->request, when, &a);
		return;
	}
	if (a.at != when || a.at > (latest > s->now ? latest : s->now))
		trial_fail("for %lld, not %lld", (long long)a.at, (long long)when);
	for (int i = 0; i < 2; i++)
		if (neap_limiter_when(&was[i], b->request.cost[i], s->now) <= s->now &&
		    neap_limiter_available(&was[i], s->now) >= 0 &&
		    neap_limiter_available(&s->limiter[i], s->now) < 0)
			trial_fail("rate %d is kept from all others", i);
	b->at = a.at;
	if ((b->booking != NULL) != (a.at > s->now))
		trial_fail("for %lld, and nothing to undo it with", (long long)a.at);
	if (b->booking) {
		s->count++;
		return;
	}
	call_comes(s, &b->request, a.at);
	neap_engine_give(s->engine, &b->request, NEAP_SUCCESS, a.at, s->now);
}

static void take(struct scene *s, struct dice *d)
{
	struct neap_request r = any_request(s, d);
	struct neap_answer a;
	neap_engine_try(s->engine, &r, s->now, &a);
	if (a.status != NEAP_GRANTED)
		return;
	call_comes(s, &r, s->now);
	neap_engine_give(s->engine, &r, NEAP_SUCCESS, s->now, s->now);
}

static void undo(struct scene *s, int i)
{
	neap_engine_unbook(s->engine, s->booked[i].booking, s->now);
	drop(s, i);
}

static void never_too_much(struct dice *d)
{
	for (int64_t left = trial_ops(400); left > 0; left--) {
		static struct scene s;
		open_scene(&s, d);
		for (int step = 0; step < 150; step++) {
			int what = (int)dice_between(d, 0, 9);
			if (what < 4 && s.count < BOOKED_MOST)
				book(&s, d);
			else if (what < 6)
				take(&s, d);
			else if (what < 7 && s.count)
				undo(&s, (int)dice_between(d, 0, s.count - 1));
			else
				pass(&s, s.now + dice_between(d, 0, 20));
		}
		close_scene(&s);
	}
}

static int64_t in_use(const struct scene *s)
{
	return s->limiter[PERMITS].as.semaphore.in_use;
}

/* Some calls, then bookings alone: undone in time, in any order, all is as if they had never been. */
static void no_trace(struct dice *d)
{
	for (int64_t left = trial_ops(4000); left > 0; left--) {
		static struct scene s;
		struct neap_limiter was[LIMITERS];
		open_scene(&s, d);
		for (int step = 0; step < 10; step++) {
			take(&s, d);
			pass(&s, s.now + dice_between(d, 0, 5));
		}
		memcpy(was, s.limiter, sizeof was);
		struct neap_stamp log[64];
		memcpy(log, s.log, sizeof log);
		was[WINDOW].as.window.log = log;
		int64_t out = in_use(&s);
		neap_ns first = neap_never;
		for (int step = 0; step < 12; step++) {
			struct booked *b = &s.booked[s.count];
			struct neap_answer a;
			b->request = any_request(&s, d);
			if (neap_all_when(&s.all, b->request.cost, s.now, NULL) <= s.now)
				continue;
			b->booking = neap_engine_book(s.engine, &b->request, neap_never, s.now, &a);
			if (a.status != NEAP_GRANTED)
				continue;
			b->at = a.at;
			first = a.at < first ? a.at : first;
			s.count++;
			if (s.now + 1 < first)
				s.now += dice_between(d, 0, 1);
		}
		while (s.count) {
			undo(&s, (int)dice_between(d, 0, s.count - 1));
			if (s.now + 1 < first)
				s.now += dice_between(d, 0, 1);
		}
		for (neap_ns at = s.now; at < s.now + 200; at += dice_between(d, 1, 40))
			for (int i = 0; i < PERMITS; i++)
				if (neap_limiter_available(&s.limiter[i], at) !=
					    neap_limiter_available(&was[i], at) ||
				    neap_limiter_when(&s.limiter[i], 1, at) !=
					    neap_limiter_when(&was[i], 1, at))
					trial_fail("limiter %d is not as it was", i);
		if (in_use(&s) != out)
			trial_fail("%lld permits are out", (long long)in_use(&s));
		close_scene(&s);
	}
}

/* A table of keys answers as limiters apart do. */
static void keys(struct dice *d)
{
	static const uint8_t secret[16];
	for (int64_t left = trial_ops(2000); left > 0; left--) {
		struct neap_limiter like = {.kind = NEAP_GCRA}, keyed = {.kind = NEAP_KEYED}, apart[3];
		int64_t amount = dice_between(d, 1, 5), burst = dice_between(d, 1, 6);
		neap_gcra_init(&like.as.gcra, amount, dice_between(d, 2, 40), burst);
		for (int i = 0; i < 3; i++)
			apart[i] = like;
		keyed.as.keyed = neap_keyed_open(&like, 16, NEAP_REFUSE, 0, secret);
		struct neap_term of_keys = {&keyed, 1, 0, 0}, of[3];
		struct neap_all all, alone[3];
		neap_all_init(&all, &of_keys, 1);
		for (int i = 0; i < 3; i++) {
			of[i] = (struct neap_term){&apart[i], 1, 0, 0};
			neap_all_init(&alone[i], &of[i], 1);
		}
		struct neap_engine *one = neap_engine_open(4, 0), *other = neap_engine_open(4, 0);
		struct neap_booking *kept[2][40];
		int kept_count = 0;
		neap_ns now = 1000;
		for (int step = 0; step < 40; step++) {
			int i = (int)dice_between(d, 0, 2);
			struct neap_request r = {.all = &all, .cost = {dice_between(d, 1, 3)},
						 .key = {(uint64_t)i + 7}}, q = r;
			struct neap_answer a, b;
			q.all = &alone[i];
			now += dice_between(d, 0, 9);
			struct neap_booking *m = neap_engine_book(one, &r, neap_never, now, &a);
			struct neap_booking *n = neap_engine_book(other, &q, neap_never, now, &b);
			if (a.status != b.status || a.at != b.at)
				trial_fail("%d for %lld, not %d for %lld", a.status, (long long)a.at,
					   b.status, (long long)b.at);
			if (m && dice_between(d, 0, 1)) {
				neap_engine_unbook(one, m, now);
				neap_engine_unbook(other, n, now);
			} else if (m) {
				kept[0][kept_count] = m;
				kept[1][kept_count++] = n;
			}
		}
		for (int i = 0; i < kept_count; i++) {
			neap_engine_unbook(one, kept[0][i], now);
			neap_engine_unbook(other, kept[1][i], now);
		}
		neap_engine_close(one);
		neap_engine_close(other);
		neap_keyed_close(keyed.as.keyed);
	}
}

/* A key is not there before somebody asks; a booking for another term's sake makes it. */
static void a_new_key(struct dice *d)
{
	(void)d;
	static const uint8_t secret[16];
	struct neap_limiter rate = {.kind = NEAP_GCRA}, keyed = {.kind = NEAP_KEYED}, look;
	neap_gcra_init(&look.as.gcra, 1, 100, 1);
	struct neap_limiter like = {.kind = NEAP_GCRA};
	neap_gcra_init(&like.as.gcra, 1, 1000, 5);
	neap_gcra_init(&rate.as.gcra, 1, 100, 1);
	keyed.as.keyed = neap_keyed_open(&like, 16, NEAP_REFUSE, 0, secret);
	struct neap_term term[] = {{&rate, 1, 0, 0}, {&keyed, 1, 1, 0}};
	struct neap_all all;
	neap_all_init(&all, term, 2);
	struct neap_engine *e = neap_engine_open(4, 0);
	struct neap_request r = {.all = &all, .cost = {1, 2}, .key = {42}};
	struct neap_answer a;
	neap_limiter_take(&rate, 1, 1000);
	struct neap_booking *b = neap_engine_book(e, &r, neap_never, 1000, &a);
	if (a.status != NEAP_GRANTED || a.at != 1100)
		trial_fail("%d for %lld", a.status, (long long)a.at);
	neap_keyed_look(keyed.as.keyed, 42, 1100, &look);
	if (neap_limiter_available(&look, 1100) != 3)
		trial_fail("%lld left", (long long)neap_limiter_available(&look, 1100));
	neap_engine_unbook(e, b, 1050);
	neap_keyed_look(keyed.as.keyed, 42, 1050, &look);
	if (neap_limiter_available(&look, 1050) != 5)
		trial_fail("%lld left after all", (long long)neap_limiter_available(&look, 1050));
	neap_engine_close(e);
	neap_keyed_close(keyed.as.keyed);
}

/* A rate that is changed meanwhile keeps what is booked, and gives back what is undone. */
static void changed_meanwhile(struct dice *d)
{
	(void)d;
	struct neap_limiter rate = {.kind = NEAP_GCRA};
	neap_gcra_init(&rate.as.gcra, 1, 100, 4);
	struct neap_term term = {&rate, 1, 0, 0};
	struct neap_all all;
	neap_all_init(&all, &term, 1);
	struct neap_engine *e = neap_engine_open(4, 0);
	struct neap_request r = {.all = &all, .cost = {2}};
	struct neap_answer a;
	neap_limiter_take(&rate, 4, 1000);
	struct neap_booking *one = neap_engine_book(e, &r, neap_never, 1000, &a);
	struct neap_booking *two = neap_engine_book(e, &r, neap_never, 1000, &a);
	if (a.at != 1400 || neap_limiter_available(&rate, 1000) != -4)
		trial_fail("for %lld", (long long)a.at);
	neap_gcra_change(&rate.as.gcra, 7, 100, 8, NEAP_KEEP_SPENT, 1000);
	int64_t left = neap_limiter_available(&rate, 1000);
	neap_engine_unbook(e, two, 1000);
	if (neap_limiter_available(&rate, 1000) != left + 2)
		trial_fail("%lld, not %lld", (long long)neap_limiter_available(&rate, 1000),
			   (long long)left + 2);
	r.cost[0] = 6;
	two = neap_engine_book(e, &r, neap_never, 1000, &a);
	neap_engine_unbook(e, two, 1000);
	neap_engine_unbook(e, one, 1000);
	if (neap_limiter_available(&rate, 1000) != left + 4)
		trial_fail("%lld, not %lld", (long long)neap_limiter_available(&rate, 1000),
			   (long long)left + 4);
	neap_engine_close(e);
}

/* A rate, spent at 1000, that is asked for five times as much while a pause is on. */
struct dear {
	struct neap_pause pause;
	struct neap_limiter rate, limiter;
	struct neap_term term;
	struct neap_all all;
	struct neap_request request;   /* of 2, or of 10 */
	struct neap_answer answer;
};

static struct neap_engine *open_dear(struct dear *x, neap_ns paused_until)
{
	*x = (struct dear){.rate = {.kind = NEAP_GCRA}, .limiter = {.kind = NEAP_CONDITIONAL},
		.term = {&x->limiter, 1, 0, 0}, .request = {.all = &x->all, .cost = {2}}};
	neap_pause_init(&x->pause);
	neap_pause_extend(&x->pause, paused_until);
	neap_gcra_init(&x->rate.as.gcra, 1, 10, 20);
	struct neap_conditional c = {.of = &x->rate, .pause = {&x->pause, NULL}, .on = 5, .off = 1};
	neap_conditional_init(&x->limiter, &c);
	neap_all_init(&x->all, &x->term, 1);
	neap_limiter_take(&x->rate, 20, 1000);
	return neap_engine_open(4, 0);
}

/* What is only asked while a pause is on is not asked of who comes after it. */
static void after_the_pause(struct dice *d)
{
	(void)d;
	struct dear x;
	struct neap_engine *e = open_dear(&x, 1050);
	struct neap_booking *b = neap_engine_book(e, &x.request, neap_never, 1000, &x.answer);   /* 10 at 1100, or 2 after 1050 */
	if (x.answer.status != NEAP_GRANTED || x.answer.at != 1050 || x.answer.on != 0)
		trial_fail("%d for %lld", x.answer.status, (long long)x.answer.at);
	if (neap_limiter_available(&x.rate, 1050) != 3)
		trial_fail("%lld left", (long long)neap_limiter_available(&x.rate, 1050));
	neap_engine_unbook(e, b, 1020);
	if (neap_limiter_available(&x.rate, 1050) != 5)
		trial_fail("%lld left after all", (long long)neap_limiter_available(&x.rate, 1050));
	neap_engine_close(e);
}

/* What costs more while a pause is on is charged so, and given back so, as long as it lasts. */
static void during_the_pause(struct dice *d)
{
	(void)d;
	struct dear x;
	struct neap_engine *e = open_dear(&x, 5000);
	struct neap_booking *one = neap_engine_book(e, &x.request, neap_never, 1000, &x.answer);
	if (x.answer.at != 1100 || x.answer.on != 1)
		trial_fail("for %lld", (long long)x.answer.at);
	struct neap_booking *two = neap_engine_book(e, &x.request, neap_never, 1000, &x.answer);
	if (x.answer.at != 1200 || neap_limiter_available(&x.rate, 1000) != -20)
		trial_fail("for %lld", (long long)x.answer.at);
	neap_engine_unbook(e, one, 1010);
	if (neap_limiter_available(&x.rate, 1010) != -9)
		trial_fail("%lld left", (long long)neap_limiter_available(&x.rate, 1010));
	neap_engine_unbook(e, two, 1010);
	if (neap_limiter_available(&x.rate, 1010) != 1)
		trial_fail("%lld left after all", (long long)neap_limiter_available(&x.rate, 1010));
	neap_engine_close(e);
}

/* Who waits goes first, and a trial call of a breaker is for now. */
static void not_booked(struct dice *d)
{
	(void)d;
	struct neap_limiter rate = {.kind = NEAP_GCRA}, breaker = {.kind = NEAP_BREAKER};
	neap_gcra_init(&rate.as.gcra, 1, 100, 1);
	struct neap_trip trip = {.rule = NEAP_TRIP_ROW, .failures = 1};
	if (neap_breaker_init(&breaker.as.breaker, &trip, NULL, 50, 1, 1))
		trial_fail("breaker refused");
	breaker.as.breaker.sheds = 1;
	struct neap_term term[] = {{&rate, 1, 0, 0}, {&breaker, 1, 0, 0}};
	struct neap_all all;
	neap_all_init(&all, term, 2);
	struct neap_engine *e = neap_engine_open(4, 0);
	struct neap_request r = {.all = &all, .cost = {1}, .deadline = neap_never};
	struct neap_answer a;
	neap_limiter_take(&rate, 1, 1000);
	neap_engine_acquire(e, &r, 1000, &a);
	neap_engine_book(e, &r, neap_never, 1000, &a);
	if (a.status != NEAP_REFUSED || a.ahead != 1 || a.at != 1200)
		trial_fail("%d for %lld", a.status, (long long)a.at);
	neap_engine_advance(e, 1100);
	neap_breaker_open(&breaker.as.breaker, 1150, 1100);
	neap_engine_book(e, &r, neap_never, 1120, &a);
	if (a.status != NEAP_SHED)
		trial_fail("status %d of an open one", a.status);
	neap_engine_book(e, &r, neap_never, 1160, &a);
	if (a.status != NEAP_REFUSED || a.at != 1200 || a.bound != 1)
		trial_fail("status %d of one on trial", a.status);
	neap_engine_book(e, &r, neap_never, 1200, &a);
	if (a.status != NEAP_GRANTED || a.at != 1200)
		trial_fail("status %d of a trial call", a.status);
	neap_engine_close(e);
}

int main(void)
{
	trial_run("nothing is ever too much, and each booking is for the first instant", never_too_much);
	trial_run("what is undone in time leaves no trace", no_trace);
	trial_run("a table of keys answers as limiters apart do", keys);
	trial_run("a key that nobody asked for before is charged, too", a_new_key);
	trial_run("a rate that is changed keeps what is booked", changed_meanwhile);
	trial_run("who is booked for after a pause is charged as after it", after_the_pause);
	trial_run("what costs more while a pause is on is booked so", during_the_pause);
	trial_run("nobody is booked behind those who wait, nor for a trial call", not_booked);
	return trial_verdict();
}
