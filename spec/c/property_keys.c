/* SPDX-License-Identifier: MIT */
/* property_keys.c - the table of keys against a list of people who come and go.
 *
 * Everybody has a number; the list knows of each the word, and when it was last seen. What the
 * table does with homes, reaches and two tables at once the list does not know: who is alive is
 * alive, who is not is not, and who has to make room is the one that was seen longest ago.
 *
 * Hashes are not only random but also crowded, so that few homes are all there are, at both ends
 * of the table. Tables are tiny, or begin to grow; the allocator says no now and then.
 *
 * For large tables the rule is about places near home, so the one that has to make room is found by
 * looking into the table before it is asked. All else needs no such look.
 */
#include "../../engine/keys.h"
#include "trial.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PEOPLE = 4000, SMALL = 512, PAGE = 4096 };

/* ---- memory ---- */

void *__real_aligned_alloc(size_t line, size_t size);
void *__real_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset);
int __real_munmap(void *at, size_t size);
#pragma GCC visibility push(default)   /* or a sanitizer's library does not link */
void *__wrap_aligned_alloc(size_t line, size_t size);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset);
int __wrap_munmap(void *at, size_t size);
#pragma GCC visibility pop

static int stingy;       /* of 100 allocations so many fail */
static struct dice luck;
static size_t mapped;    /* pages there are, in bytes */
static size_t largest;   /* that went at once, but for what had just come */
static void *latest;

static int refuses(void) { return stingy && dice_between(&luck, 1, 100) <= stingy; }
static size_t in_pages(size_t size) { return (size + 4095) / 4096 * 4096; }

void *__wrap_aligned_alloc(size_t line, size_t size)
{
	return refuses() ? NULL : __real_aligned_alloc(line, size);
}

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset)
{
	if (refuses())
		return MAP_FAILED;
	mapped += in_pages(size);
	return latest = __real_mmap(at, size, protection, flags, file, offset);
}

int __wrap_munmap(void *at, size_t size)
{
	mapped -= in_pages(size);
	largest = at != latest && size > largest ? size : largest;
	return __real_munmap(at, size);
}

/* ---- the list ---- */

struct person {
	uint64_t hash;
	int64_t word, seen_us;
	int64_t order;         /* of being seen: no two alike */
	int walks;             /* has been alive since the walk began */
	int met;
};

struct pair {
	struct neap_keys *keys;
	struct person person[PEOPLE];
	int people;
	int64_t count_max, clock, now, idle_us, order, evicted, refused;
	int64_t life;          /* the least that a word lives */
	int full, crowded;
	uint64_t cursor;
	int walking;
	int64_t last_met;      /* hash, or -1 */
};

static int is_alive(const struct pair *p, const struct person *o)
{
	return o->word > p->clock && (!p->idle_us || p->now / 1000 - o->seen_us < p->idle_us);
}

static int64_t alive(const struct pair *p)
{
	int64_t count = 0;
	for (int i = 0; i < p->people; i++)
		count += is_alive(p, &p->person[i]);
	return count;
}

static void see(struct pair *p, struct person *o)
{
	o->seen_us = p->now / 1000;
	o->order = ++p->order;
}

/* 62 bits, as one wants them; each differs, for the low ones are the person's number. */
static uint64_t some_hash(struct dice *d, int crowded, int number)
{
	uint64_t x = dice_throw(d);
	if (crowded == 1)
		x = 0;                                                     /* all at the first line */
	else if (crowded == 2)
		x |= UINT64_C(0x7FFFFFF) << 36;                            /* and all at the last */
	else if (crowded == 3)
		x = (x & UINT64_C(0x803FFFFFFFFFFFFF)) | (x & 1) << 62;    /* some here, some there */
	return (x & ~UINT64_C(0xFFFF)) | (uint64_t)number;
}

static void open_both(struct dice *d, struct pair *p, int64_t count_max, int people)
{
	static const uint8_t secret[16];
	memset(p, 0, sizeof *p);
	p->count_max = count_max;
	p->people = people < PEOPLE ? people : PEOPLE;
	p->full = dice_between(d, 0, 1) ? NEAP_LEAST_RECENT : NEAP_REFUSE;
	p->idle_us = dice_between(d, 0, 1) ? dice_any_size(d, 1, 300) : 0;
	p->crowded = (int)dice_between(d, 0, 3);
	for (int i = 0; i < p->people; i++)
		p->person[i].hash = some_hash(d, p->crowded, i);
	p->person[0].hash = UINT64_C(1) << 62;   /* the least of the second half */
	p->keys = neap_keys_open(count_max, secret);
	if (!p->keys)
		trial_fail("no memory");
	if ((p->full || p->idle_us) && neap_keys_remember(p->keys, p->idle_us * 1000, p->full))
		trial_fail("no memory to remember");
	p->life = 1;
	p->last_met = -1;
}

static int is_exact(const struct pair *p) { return p->full || p->count_max <= SMALL; }

/* ---- one step each ---- */

static int64_t *ask(struct pair *p, const struct person *o)
{
	return neap_keys_find(p->keys, o->hash, p->clock);
}

static void leave(struct pair *p, struct person *o)
{
	o->word = p->clock;
	o->walks = 0;
}

static struct neap_keys_stats stats_of(const struct pair *p)
{
	struct neap_keys_stats s;
	neap_keys_stats(p->keys, &s);
	return s;
}

/* Of the people alive and near o's home, by looking where they lie, the one seen longest ago. */
static struct person *who_goes(struct pair *p, const struct person *o)
{
	const struct table *t = &p->keys->now;
	uint32_t home = home_of(t, o->hash), near = t->lines;
	if (near > FAR)   /* as near as that only at the bound; before, there was no memory */
		near = near == p->keys->lines_max ? CLOSE : FAR;
	struct person *least = NULL;
	for (int i = 0; i < p->people; i++) {
		struct person *other = &p->person[i];
		const char *at = (const char *)(is_alive(p, other) ? ask(p, other) : NULL);
		uint64_t place = ((uint64_t)at - (uint64_t)t->line) / sizeof(struct entry);
		if (at && place < (uint64_t)t->lines * ENTRIES &&
		    (place / ENTRIES + t->lines - home) % t->lines < near &&
		    (!least || other->order < least->order))
			least = other;
	}
	return least;
}

/* What is moving may make others go, which is counted. Where all have one home, those who stayed
 * there were seen after those who went. */
static void some_left(struct pair *p)
{
	int64_t evicted = stats_of(p).evicted - p->evicted;
	p->evicted += evicted;
	for (int i = 0; evicted > 0 && i < p->people; i++)
		if (is_alive(p, &p->person[i]) && !ask(p, &p->person[i])) {
			leave(p, &p->person[i]);
			evicted--;
			const struct person *stayed = who_goes(p, &p->person[i]);
			if (p->crowded == 1 && stayed && stayed->order < p->person[i].order)
				trial_fail("%d had to go before one who was seen earlier", i);
		}
	if (evicted)
		trial_fail("%ld more are counted as evicted than are gone", evicted);
}

static void turn_to(struct pair *p, neap_ns now)
{
	int64_t moving = stats_of(p).moving;
	neap_keys_turn_to(p->keys, now);
	if (moving - stats_of(p).moving > 16)
		trial_fail("%ld of %ld moved at once", moving - stats_of(p).moving, moving);
	if (moving)
		some_left(p);
}

static void time_passes(struct dice *d, struct pair *p)
{
	if (!dice_between(d, 0, 2))
		p->now += dice_between(d, 0, 3) ? dice_any_size(d, 1, 2000) : dice_any_size(d, 1, 400000);
	if (!dice_between(d, 0, 2))
		p->clock += dice_any_size(d, 1, 40);
	for (int i = 0; p->walking && i < p->people; i++)
		p->person[i].walks &= is_alive(p, &p->person[i]);
	neap_keys_find(p->keys, 0, p->clock);
	turn_to(p, p->now);
	/* from here on what it is told may step back; it does not */
	if (!dice_between(d, 0, 9))
		turn_to(p, dice_between(d, 0, p->now));
}

static int64_t told_clock(struct dice *d, const struct pair *p)
{
	return p->clock - (dice_between(d, 0, 9) ? 0 : dice_between(d, 0, p->clock));
}

static void expect_alive(struct pair *p, struct person *o)
{
	const int64_t *word = ask(p, o);
	if (!word != !is_alive(p, o))
		trial_fail("%ld is %s", o - p->person, word ? "still there" : "gone");
	if (word && *word != o->word)
		trial_fail("%ld has %ld, not %ld", o - p->person, *word, o->word);
}

static void come(struct dice *d, struct pair *p, struct person *o)
{
	int was = is_alive(p, o), room = 1;
	int64_t there = alive(p), least = INT64_MAX, clock = told_clock(d, p);
	neap_ns idle_at = neap_never;
	struct person *goes = NULL;
	if (!was) {
		room = neap_keys_room(p->keys, o->hash, clock, &least, &idle_at);
		if (is_exact(p) && !p->full && room != (there < p->count_max))
			trial_fail("of %ld there are %ld, and room is %d", p->count_max, there, room);
		if (p->full && !room)
			trial_fail("nobody makes room");
		if (there >= p->count_max || p->count_max > SMALL)
			goes = who_goes(p, o);
	}
	int64_t moving = stats_of(p).moving;
	if (dice_between(d, 0, 1))
		ask(p, o);   /* what was looked for in vain is not looked for again */
	int64_t *word = neap_keys_at(p->keys, o->hash, clock);
	if (moving - stats_of(p).moving > 16)
		trial_fail("%ld of %ld moved at once", moving - stats_of(p).moving, moving);
	int growing = moving || stats_of(p).moving;
	if (!word != !room && !(word && stingy))   /* there was no memory a moment ago */
		trial_fail("room is %d and word %p", room, (void *)word);
	if (!word) {
		p->refused++;
		return;
	}
	if (was ? *word != o->word : *word > p->clock)
		trial_fail("%ld has %ld, not %ld", o - p->person, *word, o->word);
	int64_t life = dice_between(d, 0, 5) ? dice_any_size(d, p->life, p->life * 4000) : 0;
	int64_t evicted = stats_of(p).evicted - p->evicted;
	*word = p->clock + life;
	see(p, o);
	if (!was)
		o->walks = 0;
	o->word = p->clock + life;
	if (!life)
		leave(p, o);
	if (growing) {
		some_left(p);
		return;
	}
	if (life && neap_keys_at(p->keys, o->hash, clock) != word)
		trial_fail("%ld is there twice", o - p->person);
	p->evicted += evicted;
	if (evicted != (p->full && there >= p->count_max && !was) &&
	    (evicted != 1 || p->count_max <= SMALL || was))
		trial_fail("%ld were evicted, with %ld of %ld there", evicted, there, p->count_max);
	if (evicted) {
		leave(p, goes);
		expect_alive(p, goes);
	}
}

/* When there is no room, there is at the instant that is said, and not before. */
static void room_comes_when_said(struct pair *p, struct person *o)
{
	int64_t least, least_then;
	neap_ns idle_at, idle_then;
	if (is_alive(p, o) || neap_keys_room(p->keys, o->hash, p->clock, &least, &idle_at))
		return;
	if (least <= p->clock || idle_at <= p->now)
		trial_fail("room is to come at %ld or %ld, now %ld or %ld", least, idle_at, p->clock, p->now);
	int idle_first = idle_at != neap_never && idle_at - p->now < least - p->clock;
	if (idle_first)
		turn_to(p, p->now = idle_at - 1);
	else
		p->clock = least - 1;
	if (neap_keys_room(p->keys, o->hash, p->clock, &least_then, &idle_then))
		trial_fail("room came before %ld or %ld", least, idle_at);
	if (idle_first)
		turn_to(p, p->now = idle_at);
	else
		p->clock = least;
	if (!neap_keys_room(p->keys, o->hash, p->clock, &least_then, &idle_then))
		trial_fail("room did not come at %ld or %ld", least, idle_at);
	for (int i = 0; i < p->people; i++)
		p->person[i].walks &= is_alive(p, &p->person[i]);
}

static void look(struct dice *d, struct pair *p, struct person *o)
{
	int64_t *word = neap_keys_find(p->keys, o->hash, told_clock(d, p));
	if (!word != !is_alive(p, o) || (word && *word != o->word))
		trial_fail("%ld has %ld, not %ld", o - p->person, word ? *word : -1, o->word);
	if (word && dice_between(d, 0, 1)) {
		neap_keys_touch(p->keys, word);
		see(p, o);
	}
}

/* A few steps of a walk; at its end, whoever was there all the time has been met. */
static void walk_on(struct dice *d, struct pair *p)
{
	if (!p->walking) {
		p->walking = 1;
		p->cursor = 0;
		p->last_met = -1;
		for (int i = 0; i < p->people; i++) {
			p->person[i].walks = is_alive(p, &p->person[i]);
			p->person[i].met = 0;
		}
	}
	for (int64_t n = dice_any_size(d, 1, 64); n > 0; n--) {
		uint64_t hash;
		int64_t word;
		int found = neap_keys_next(p->keys, &p->cursor, &hash, &word);
		if (found > 0) {
			struct person *o = &p->person[hash & 0xFFFF];
			if ((int64_t)hash <= p->last_met || o->met++ || !is_alive(p, o) || word != o->word)
				trial_fail("met %ld, with %ld, not %ld", o - p->person, word, o->word);
			p->last_met = (int64_t)hash;
		} else if (found < 0) {
			p->walking = 0;
			for (int i = 0; i < p->people; i++)
				if (p->person[i].walks && !p->person[i].met)
					trial_fail("%d was not met", i);
			return;
		}
	}
}

static void expect_same(struct pair *p)
{
	int64_t there = alive(p), count = neap_keys_count(p->keys, p->clock);
	struct neap_keys_stats s = stats_of(p);
	if (count != there)
		trial_fail("%ld are there, not %ld", count, there);
	if (is_exact(p) && there > p->count_max)
		trial_fail("%ld are there, and %ld may be", there, p->count_max);
	if (s.evicted != p->evicted || s.refused != p->refused)
		trial_fail("%ld evicted, %ld refused; not %ld, %ld", s.evicted, s.refused, p->evicted,
			   p->refused);
	if (neap_keys_check(p->keys, p->clock))
		trial_fail("the table is not sound");
}

static void step(struct dice *d, struct pair *p)
{
	struct person *o = &p->person[dice_between(d, 0, p->people - 1)];
	time_passes(d, p);
	switch (dice_between(d, 0, 15)) {
	case 0:
		neap_keys_forget(p->keys, o->hash);
		leave(p, o);
		break;
	case 1: case 2: case 3:
		look(d, p, o);
		break;
	case 4: case 5:
		walk_on(d, p);
		break;
	case 6:
		room_comes_when_said(p, o);
		break;
	default:
		come(d, p, o);
	}
	expect_alive(p, o);
}

/* At once, or bit by bit while it is looked into; then there is nothing left. */
static void close_both(struct dice *d, struct pair *p)
{
	size_t at_once = largest;
	if (dice_between(d, 0, 1))
		neap_keys_close(p->keys);
	else
		for (int gone = 0; !gone; at_once = largest) {
			const struct person *o = &p->person[dice_between(d, 0, p->people - 1)];
			const int64_t *word = ask(p, o), count = neap_keys_count(p->keys, p->clock);
			uint64_t hash, cursor = 0;
			int64_t met = 0, of_it;
			for (int found; (found = neap_keys_next(p->keys, &cursor, &hash, &of_it)) >= 0;)
				met += found;
			if ((word && (*word != o->word || !is_alive(p, o))) || met > count)
				trial_fail("what is left is not what there was");
			gone = neap_keys_close_some(p->keys);
		}
	largest = 0;
	if (mapped || at_once > 2 * PAGE + FAR * sizeof(struct line))
		trial_fail("%zu bytes are left, %zu went at once", mapped, at_once);
}

/* ---- trials ---- */

static struct pair pair;

static void tiny(struct dice *d)
{
	for (int64_t ops = trial_ops(400000); ops > 0;) {
		int64_t count_max = dice_any_size(d, 1, dice_between(d, 0, 3) ? 64 : SMALL);
		open_both(d, &pair, count_max, (int)(count_max * dice_between(d, 1, 3) + 1));
		for (int i = 0; i < 1500; i++, ops--) {
			step(d, &pair);
			expect_same(&pair);
		}
		close_both(d, &pair);
	}
}

/* Words live long enough to fill it, or not. There may be no memory to grow for long. */
static void growing(struct dice *d)
{
	luck = *d;
	for (int64_t ops = trial_ops(80000); ops > 0;) {
		open_both(d, &pair, dice_between(d, 500, 3000), 4000);
		pair.life = dice_any_size(d, 1, 10000);
		int64_t poor = dice_between(d, 0, 1000), rich = dice_between(d, 0, 3500);
		int crowd = (int)dice_between(d, 0, 1);
		for (int64_t i = 0; i < 4000; i++, ops--) {
			stingy = i >= poor && i < rich ? 100 : dice_between(d, 0, 1) ? 90 : 0;
			if (crowd)
				come(d, &pair, &pair.person[i]);
			step(d, &pair);
			if (!dice_between(d, 0, 50))
				expect_same(&pair);
		}
		expect_same(&pair);
		for (int i = 0; i < pair.people; i++)
			expect_alive(&pair, &pair.person[i]);
		stingy = 0;
		close_both(d, &pair);
	}
}

/* Stamps run ahead of the clock where many are given at one instant; idle time does not. */
static void crowds_of_one_instant(struct dice *d)
{
	open_both(d, &pair, 2, 2);
	if (neap_keys_remember(pair.keys, 2000, NEAP_REFUSE))
		trial_fail("no memory");
	for (int i = 0; i < 2; i++)
		*neap_keys_at(pair.keys, pair.person[i].hash, 0) = 1;
	for (int i = 0; i < 3 << STAMP_BITS; i++)
		neap_keys_touch(pair.keys, neap_keys_find(pair.keys, pair.person[0].hash, 0));
	neap_keys_turn_to(pair.keys, 1999);
	if (neap_keys_count(pair.keys, 0) != 2)
		trial_fail("idle before its time");
	neap_keys_close(pair.keys);
}

int main(void)
{
	trial_run("a tiny table is a list: who is there, who goes, who is turned away", tiny);
	trial_run("a table that grows loses nobody, also without memory", growing);
	trial_run("nobody is idle because others are seen often", crowds_of_one_instant);
	return trial_verdict();
}
