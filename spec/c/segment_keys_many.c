/* SPDX-License-Identifier: MIT */
/* segment_keys_many.c - limits by key in a segment, for many keys and for many processes.
 *
 * As many keys as were asked for fit, and who is late finds what was his. Then several processes
 * take of two tables and a rate at once, while limits change: what is spent is what was granted.
 * Then they are killed all the time: what is spent is what was granted, and for each that was
 * killed no more than what it was taking.
 */
#define _GNU_SOURCE
#include "shared.h"
#include "trial.h"

#include <sys/mman.h>
#include <unistd.h>

enum { KEYS = 12, CHILDREN = 4, KILLS = 150 };

static const neap_ns NOW = 1000000000, YEAR = INT64_C(31536000000000000);

/* A request of one process to one or more tables. */
struct user {
	struct neap_engine *engine;
	struct neap_limiter limiter[3];
	struct neap_term term[3];
	struct neap_all all;
};

static void user_open(struct user *u, struct neap_keyed *first, struct neap_keyed *second,
		      struct neap_limiter *third)
{
	u->engine = neap_engine_open(100, NOW);
	u->limiter[0] = (struct neap_limiter){.kind = NEAP_KEYED, .as.keyed = first};
	u->limiter[1] = (struct neap_limiter){.kind = NEAP_KEYED, .as.keyed = second};
	u->term[0] = (struct neap_term){&u->limiter[0], 1, 0, 0};
	u->term[1] = (struct neap_term){&u->limiter[1], 1, 0, 1};
	u->term[2] = (struct neap_term){third, 1, 0, 0};
	if (neap_all_init(&u->all, u->term, second ? 3 : 1))
		trial_fail("no such all");
}

static int user_try(struct user *u, int64_t a, int64_t b)
{
	struct neap_answer answer;
	struct neap_request r = {.all = &u->all, .deadline = neap_never, .cost = {1},
				 .key = {shared_key(a), shared_key(b)}};
	neap_engine_try(u->engine, &r, NOW, &answer);
	return answer.status;
}

static void all_keys_fit(struct dice *d)
{
	enum { MANY = 20000 };
	struct neap_limiter like = shared_rate(1, YEAR, 5);
	struct neap_segment *s = shared_fresh(1 << 20);
	struct neap_keyed *k = shared_keyed(s, "many", &like, MANY, NEAP_REFUSE, 0);
	struct user u;
	int64_t first = dice_between(d, 0, INT32_MAX);
	user_open(&u, k, NULL, NULL);
	for (int64_t i = 0; i < MANY; i++)
		shared_told("a key", user_try(&u, first + i, 0), NEAP_GRANTED);
	for (int64_t i = 0; i < MANY; i++)
		for (int n = 0; n < 5; n++)
			shared_told("again", user_try(&u, first + i, 0), n < 4 ? NEAP_GRANTED : NEAP_REFUSED);
	shared_told("alive", neap_keyed_count(k, NOW), MANY);
	struct neap_limiter more = shared_rate(2, YEAR, 8);
	shared_told("changed", neap_keyed_change(k, &more, NEAP_KEEP_SPENT, NOW), 0);
	for (int64_t i = 0; i < MANY; i++)
		for (int n = 0; n < 4; n++)
			shared_told("and more", user_try(&u, first + i, 0), n < 3 ? NEAP_GRANTED : NEAP_REFUSED);
	int64_t shed = 0;
	for (int64_t i = 0; i < MANY; i++)
		shed += user_try(&u, first + MANY + i, 0) == NEAP_SHED;
	if (shed < MANY / 2)
		trial_fail("%ld of %d strangers were turned away", shed, MANY);
	shared_whole(s);
	neap_engine_close(u.engine);
	neap_keyed_close(k);
	neap_segment_close(s);
}

/* One process is late, and another has given its key's entry away meanwhile: to those who waited
 * in line it was never full. */
static void late(struct dice *d)
{
	enum { WAITERS = 40 };
	const neap_ns second = 1000000000;
	struct neap_limiter like = shared_rate(1, second, 10);
	struct neap_segment *s = shared_fresh(0);
	struct neap_keyed *k = shared_keyed(s, "two", &like, 2, NEAP_REFUSE, 0);
	struct user slow, fast;
	struct neap_answer a;
	struct neap_request r = {.all = &slow.all, .deadline = neap_never, .cost = {10},
				 .key = {shared_key(1)}};
	(void)d;
	user_open(&slow, k, NULL, NULL);
	user_open(&fast, k, NULL, NULL);
	neap_engine_try(slow.engine, &r, NOW, &a);
	shared_told("all of it", a.status, NEAP_GRANTED);
	shared_told("another, in the other entry", user_try(&fast, 2, 0), NEAP_GRANTED);
	r.cost[0] = 1;
	for (int i = 0; i < WAITERS; i++)
		neap_engine_acquire(slow.engine, &r, NOW, &a);
	struct neap_request third = {.all = &fast.all, .cost = {1}, .key = {shared_key(3)}};
	neap_engine_try(fast.engine, &third, NOW + 14 * second, &a);
	shared_told("a third, in its entry", a.status, NEAP_GRANTED);
	shared_told("granted by then", neap_engine_advance(slow.engine, NOW + 20 * second), 20);
	shared_whole(s);
	neap_engine_close(slow.engine);
	neap_engine_close(fast.engine);
	neap_keyed_close(k);
	neap_segment_close(s);
}

/* ---- several processes ---- */

struct ledger {
	int64_t granted[2][KEYS], all;
	int64_t ended;
};

static const int64_t LEAST = 700;   /* tokens of each key */

static int64_t spent_of(struct neap_keyed *k, int64_t n)
{
	struct neap_limiter l;
	if (neap_keyed_look(k, shared_key(n), NOW, &l))
		return 0;
	return neap_limiter_capacity(&l) - neap_limiter_available(&l, NOW);
}

struct crew {
	struct ledger *ledger;
	struct neap_segment *segment;
	struct neap_keyed *keyed[2];
	struct neap_limiter *third;
};

static struct ledger *ledger_open(void)
{
	struct ledger *l = mmap(NULL, sizeof *l, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				-1, 0);
	if (l == MAP_FAILED)
		trial_fail("no memory");
	return l;
}

static void crew_open(struct crew *c, int64_t burst)
{
	struct neap_limiter like = shared_rate(1, YEAR, burst), *l;
	struct neap_limiter third = shared_rate(1, YEAR, INT64_C(1) << 40);
	c->ledger = ledger_open();
	c->segment = shared_fresh(0);
	c->keyed[0] = shared_keyed(c->segment, "by user", &like, KEYS, NEAP_REFUSE, 0);
	c->keyed[1] = shared_keyed(c->segment, "by tenant", &like, KEYS, NEAP_REFUSE, 0);
	if (neap_segment_add(c->segment, "all", &third, 0, 0, NOW, &l) < 0)
		trial_fail("no third");
	c->third = l;
}

static void crew_close(struct crew *c)
{
	shared_whole(c->segment);
	for (int i = 0; i < 2; i++)
		neap_keyed_close(c->keyed[i]);
	neap_segment_close(c->segment);
	munmap(c->ledger, sizeof *c->ledger);
	unlink(shared_path());
}

static int one_take(struct crew *c, struct user *u, int64_t a, int64_t b)
{
	if (user_try(u, a, b) != NEAP_GRANTED)
		return 0;
	__atomic_add_fetch(&c->ledger->granted[0][a], 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&c->ledger->granted[1][b], 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&c->ledger->all, 1, __ATOMIC_RELAXED);
	return 1;
}

/* One of many: the tables in either order, for everybody has his own. */
static void work(struct crew *c, struct dice *d, int64_t takes, int changes)
{
	struct user u;
	int turned = (int)dice_between(d, 0, 1);
	user_open(&u, c->keyed[0], c->keyed[1], c->third);
	if (turned) {
		u.term[0] = (struct neap_term){&u.limiter[1], 1, 0, 1};
		u.term[1] = (struct neap_term){&u.limiter[0], 1, 0, 0};
	}
	for (; takes; takes--) {
		if (changes && dice_between(d, 0, 50) == 0) {
			struct neap_limiter like = shared_rate(dice_between(d, 1, 5), YEAR,
							dice_between(d, 1 << 20, 1 << 24));
			neap_keyed_change(c->keyed[dice_between(d, 0, 1)], &like, NEAP_KEEP_SPENT, NOW);
		}
		one_take(c, &u, dice_between(d, 0, KEYS - 1), dice_between(d, 0, KEYS - 1));
	}
	neap_engine_close(u.engine);
}

/* What is spent is what was granted, and 'killed' more at most. */
static void adds_up(const struct crew *c, int64_t killed)
{
	int64_t left = killed;
	for (int i = 0; i < 2; i++, left = killed)
		for (int64_t n = 0; n < KEYS; n++) {
			int64_t granted = c->ledger->granted[i][n], spent = spent_of(c->keyed[i], n);
			if (spent < granted)
				trial_fail("%ld were granted, %ld are spent", granted, spent);
			left -= spent - granted;
			if (left < 0)
				trial_fail("%ld were granted, %ld are spent: more than by %ld who were "
					   "killed", granted, spent, killed);
		}
	int64_t all = neap_limiter_capacity(c->third) - neap_limiter_available(c->third, NOW);
	if (all < c->ledger->all || all - c->ledger->all > killed)
		trial_fail("%ld were granted, %ld are spent of all", c->ledger->all, all);
}

static void run_children(struct crew *c, struct dice *d, int64_t takes, int changes)
{
	pid_t child[CHILDREN];
	for (int i = 0; i < CHILDREN; i++) {
		struct dice own = {dice_throw(d)};
		child[i] = shared_fork();
		if (!child[i]) {
			work(c, &own, takes, changes);
			_exit(0);
		}
	}
	for (int i = 0; i < CHILDREN; i++)
		if (shared_wait(child[i]))
			trial_fail("a child failed");
}

static void exhausted(struct dice *d)
{
	struct crew c;
	crew_open(&c, LEAST);
	run_children(&c, d, trial_ops(30000), 0);
	adds_up(&c, 0);
	for (int64_t n = 0; n < KEYS; n++)
		shared_told("of a user", c.ledger->granted[0][n], LEAST);
	crew_close(&c);
}

static void changed_meanwhile(struct dice *d)
{
	struct crew c;
	crew_open(&c, 1 << 22);
	run_children(&c, d, trial_ops(20000), 1);
	adds_up(&c, 0);
	crew_close(&c);
}

static void killed(struct dice *d)
{
	struct crew c;
	pid_t child[CHILDREN] = {0};
	crew_open(&c, 1 << 22);
	int64_t kills = trial_ops(KILLS);
	for (int64_t n = 0; n < kills + CHILDREN; n++) {
		int i = (int)(n % CHILDREN);
		if (child[i])
			shared_kill(child[i]);
		struct dice own = {dice_throw(d)};
		child[i] = n < kills ? shared_fork() : 0;
		if (n < kills && !child[i]) {
			work(&c, &own, INT64_MAX, 1);
			_exit(0);
		}
		usleep((useconds_t)dice_between(d, 0, 3000));
	}
	adds_up(&c, kills);
	crew_close(&c);
}

int main(void)
{
	trial_run("as many keys as were asked for fit", all_keys_fit);
	trial_run("who is late finds what his key's word was", late);
	trial_run("several processes spend what there is, all at once, and no more", exhausted);
	trial_run("nothing is forgotten by changes that come meanwhile", changed_meanwhile);
	trial_run("killed at any time, they spend what they were granted", killed);
	return trial_verdict();
}
