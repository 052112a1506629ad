/* SPDX-License-Identifier: MIT */
/* stripes.c - a table from key to one word in memory that processes share, any of which may be
 * killed at any instruction.
 *
 * It is to keys.c what guard.c is to limiters: the same idea (an entry whose word time has passed
 * is free, and nothing sweeps), made for many who use it at once. So it does not grow, and is cut
 * into stripes of 128 lines, each with a mutex of its own; whoever is at a key is alone in its
 * stripe, for some 50 ns.
 *
 *      stripe 0                                        stripe 1
 *     | mutex | limit | reach of each line | 512 entries | mutex | ...
 *
 * A hash says which stripe, and which line there is home; a key lives in that line or in one that
 * follows, at the stripe's end from its beginning on. With 4/5 of the entries in use a stripe is
 * full by chance but once in a million times.
 *
 * Nothing is undone after a death, for each write leaves a table that is whole: a reach is raised
 * before a key lives there; an entry has no word while its hash is written; and to write a word, 8
 * bytes at once, is to make the take. Why no compare-and-swap on that word, as rates of their own
 * have: the entry may be another key's by then, whose word may be what was seen.
 *
 * Clocks of those who ask are not quite the same, and one who waited in line is granted at an
 * instant that is past: to him a word may say something that to others is as good as none. So it is
 * found as long as it is there, and what it was when it made room for another is remembered, as one
 * number for all in the stripe: 'lost', the latest. A key that is not there has had no later one.
 *
 * Another limit makes all words speak of what is no more. Each stripe has the limit that its words
 * are of, and who enters one that is behind carries it over: 10 us, once. A change comes to all
 * in one instant, when the configuration is written (guard.c); before that who makes it sees that no
 * stripe is behind, so none ever lacks two. A word is carried over once, whoever dies: it is kept
 * beside before it is written, in one of two places in turn, and 'progress' says in one word which
 * limit, and how many words on the way to the next.
 *
 * Order of those who enter several: stripes by segment and place, before any guard.
 *
 * Invariants:
 *   of a hash there is at most one entry with a word, at most reach[home] lines past its home
 *   words that were overwritten are no later than 'lost'
 *   the limit of a stripe is that of its slot, or the one before
 */
#include "change.h"
#include "stripes.h"

#include <assert.h>
#include <string.h>

static void barrier(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

/* ---- where things are ---- */

int64_t neap_stripes_bytes(struct neap_stripes *t, int64_t keys_max)
{
	const int64_t entries = WORDS - 1;
	int64_t wanted = keys_max <= entries ? keys_max : keys_max * 5 / 4;
	t->keys_max = keys_max;
	t->count = (uint32_t)((wanted + entries - 1) / entries);
	t->places = (uint32_t)(keys_max <= entries ? keys_max : entries);
	return t->count * (int64_t)sizeof(struct neap_stripe);
}

struct neap_stripe *neap_stripe_of(const struct neap_slot *s, uint64_t key)
{
	return stripe_at(s, (uint32_t)((key >> 32) * s->stripes.count >> 32));
}

int neap_stripe_before(const struct neap_slot *s, const struct neap_stripe *a,
		       const struct neap_slot *o, const struct neap_stripe *b)
{
	const struct neap_header *left = neap_header_of(&s->limiter);
	const struct neap_header *right = neap_header_of(&o->limiter);
	if (left->id != right->id)
		return left->id < right->id;
	return (const char *)a - (const char *)left < (const char *)b - (const char *)right;
}

static uint32_t line_after(const struct neap_slot *s, uint32_t line)
{
	return line + 1 == lines_of(s) ? 0 : line + 1;
}

/* Entries of a line: fewer in the last one of a table that ends there. */
static uint32_t ways_of(const struct neap_slot *s, uint32_t line)
{
	uint32_t left = s->stripes.places - line * NEAP_STRIPE_WAYS;
	return left < NEAP_STRIPE_WAYS ? left : NEAP_STRIPE_WAYS;
}

static struct neap_pair *pair_at(struct neap_stripe *t, uint32_t line, uint32_t way)
{
	return &t->pair[line * NEAP_STRIPE_WAYS + way];
}

struct neap_gcra *neap_stripe_limit(struct neap_stripe *t)
{
	return &t->limit[t->progress >> NEAP_PROGRESS_BITS & 1];
}

/* ---- from one limit to another ---- */

/* The rate itself, of which no word is. */
static struct neap_gcra bare(const struct neap_gcra *g)
{
	struct neap_gcra fresh = *g;
	fresh.tat = fresh.held = fresh.stands = 0;
	fresh.robust = 0;
	return fresh;
}

/* What is to hold now, and since when. */
struct wanted {
	struct neap_gcra limit;
	struct neap_config config;
};

static struct wanted wanted_of(const struct neap_slot *s)
{
	struct wanted w;   /* its limit says something of a rate alone */
	int64_t version;
	do {
		version = neap_guard_look(&s->limiter);
		w.limit = bare(&s->limiter.as.gcra);
		w.config = s->config;
	} while (neap_guard_moved(&s->limiter, version));
	return w;
}

static int64_t carried(const struct neap_stripe *t, const struct wanted *w, int64_t word)
{
	struct neap_gcra was = t->limit[serial_of(t) & 1];
	was.tat = word;
	if (word <= neap_gcra_clock(&was, w->config.changed))
		return 0;
	int64_t is = neap_gcra_carry(&was, &w->limit, (int)w->config.keep, w->config.changed);
	return is > neap_gcra_clock(&w->limit, w->config.changed) ? is : 0;
}

/* All words in their order, and the one that stands for those that are gone. */
static int64_t *word_at(struct neap_stripe *t, uint32_t i)
{
	return i < WORDS - 1 ? &t->pair[i].word : &t->lost;
}

/* Carry over the word that is kept, which is the one before the i-th. Again if it was already. */
static void carry(struct neap_stripe *t, const struct wanted *w, uint32_t i)
{
	*word_at(t, i - 1) = carried(t, w, t->saved[t->progress & 1]);
	barrier();
}

/* Keep the i-th, in the place that is not in use. */
static void keep(struct neap_stripe *t, uint32_t i)
{
	int64_t place = !(t->progress & 1);
	t->saved[place] = *word_at(t, i);
	barrier();
	t->progress = serial_of(t) << NEAP_PROGRESS_BITS | (int64_t)(i + 1) << 1 | place;
	barrier();
}

__attribute__((cold, noinline)) static void follow(const struct neap_slot *s, struct neap_stripe *t)
{
	const struct wanted w = wanted_of(s);
	if (serial_of(t) == w.config.serial)   /* a change was under way that was not made */
		return;
	if (s->limiter.kind != NEAP_GCRA) {   /* its words mean the same under any limit */
		t->progress = w.config.serial << NEAP_PROGRESS_BITS;
		return;
	}
	assert(w.config.serial == serial_of(t) + 1);
	uint32_t i = (uint32_t)(t->progress & PROGRESS) >> 1;
	if (i)   /* who was at it died */
		carry(t, &w, i);
	for (; i < WORDS; i++)
		if (*word_at(t, i)) {
			keep(t, i);
			carry(t, &w, i + 1);
		}
	t->limit[w.config.serial & 1] = w.limit;
	barrier();
	t->progress = w.config.serial << NEAP_PROGRESS_BITS;
}

/* ---- alone in a stripe ---- */

void neap_stripe_enter(const struct neap_slot *s, struct neap_stripe *t)
{
	if (neap_mutex_lock(&t->mutex))   /* whatever it was at, the table is whole */
		pthread_mutex_consistent(&t->mutex);
	if (__builtin_expect(__atomic_load_n(&s->config.serial, __ATOMIC_RELAXED) != serial_of(t), 0))
		follow(s, t);
}

void neap_stripe_leave(struct neap_stripe *t) { pthread_mutex_unlock(&t->mutex); }

void neap_stripes_make(const struct neap_slot *s)
{
	for (uint32_t i = 0; i < s->stripes.count; i++) {
		struct neap_stripe *t = stripe_at(s, i);
		memset(t, 0, sizeof *t);   /* who began to add here may have died */
		neap_mutex_init(&t->mutex);
		t->progress = s->config.serial << NEAP_PROGRESS_BITS;
		if (s->limiter.kind == NEAP_GCRA)
			*neap_stripe_limit(t) = bare(&s->limiter.as.gcra);
	}
}

void neap_stripes_follow(const struct neap_slot *s)
{
	for (uint32_t i = 0; i < s->stripes.count; i++) {
		neap_stripe_enter(s, stripe_at(s, i));
		neap_stripe_leave(stripe_at(s, i));
	}
}

/* ---- a key, by who has entered its stripe ---- */

void neap_visit_begin(struct neap_visit *v, neap_ns idle_ns, neap_ns now)
{
	*v = (struct neap_visit){.now = now, .idle_us = (idle_ns + 999) / 1000};
}

int64_t *neap_stripe_find(const struct neap_slot *s, struct neap_stripe *t, uint64_t key,
			  const struct neap_visit *v)
{
	uint32_t home = home_of(s, key), at = home;
	for (uint32_t d = 0; d <= t->reach[home]; d++, at = line_after(s, at))
		for (uint32_t i = 0; i < NEAP_STRIPE_WAYS; i++) {
			struct neap_pair *p = pair_at(t, at, i);
			if (p->key == key && p->word && holder_of(s, p) == v->holder)
				return is_idle(t, p, v) ? NULL : &p->word;
		}
	return NULL;
}

int64_t neap_stripe_permits(const struct neap_slot *s, struct neap_stripe *t, uint64_t key)
{
	uint32_t home = home_of(s, key), at = home;
	int64_t sum = 0;
	for (uint32_t d = 0; d <= t->reach[home]; d++, at = line_after(s, at))
		for (uint32_t i = 0; i < NEAP_STRIPE_WAYS; i++) {
			const struct neap_pair *p = pair_at(t, at, i);
			sum += p->key == key ? permits_of(p) : 0;
		}
	return sum;
}

void neap_stripe_see(struct neap_stripe *t, const int64_t *word, neap_ns now)
{
	const char *at = (const char *)word - offsetof(struct neap_pair, word);
	int64_t least = now / 1000 << NEAP_STAMP_SHIFT;
	t->stamp = least > t->stamp ? least : t->stamp + 1;
	t->seen[(const struct neap_pair *)(const void *)at - t->pair] = t->stamp;
}

int64_t neap_stripe_lost(const struct neap_stripe *t, int64_t clock)
{
	return t->lost > clock ? t->lost : 0;
}

/* An entry has no word any more. One that time has ended could be found by none who needs to know
 * what it was; one that is forgotten is forgotten. */
static void lose(struct neap_stripe *t, struct neap_pair *p, int64_t clock)
{
	if (p->word <= clock && p->word > t->lost)
		t->lost = p->word;
	barrier();
	__atomic_store_n(&p->word, 0, __ATOMIC_RELAXED);
	barrier();
}

int neap_stripe_room(const struct neap_slot *s, const struct neap_stripe *t,
		     const struct neap_visit *v, int64_t *least, int64_t *seen)
{
	*least = *seen = INT64_MAX;
	for (uint32_t i = 0; i < s->stripes.places; i++) {
		const struct neap_pair *p = &t->pair[i];
		if (v->evicts || is_free(t, p, v))
			return 1;
		*least = p->word < *least ? p->word : *least;
		*seen = seen_us(t, p) < *seen ? seen_us(t, p) : *seen;
	}
	return 0;
}

/* What one walk from a key's home finds: the first free entry, and the reach that others of that
 * home need. */
struct walk {
	struct neap_pair *place;
	uint32_t past, needed;   /* lines past the home line */
};

static struct walk walk(const struct neap_slot *s, struct neap_stripe *t, uint32_t home,
			const struct neap_visit *v)
{
	struct walk w = {0};
	uint32_t at = home, lines = lines_of(s);
	for (uint32_t d = 0; d < lines && (!w.place || d <= t->reach[home]); d++, at = line_after(s, at))
		for (uint32_t i = 0; i < ways_of(s, at); i++) {
			struct neap_pair *p = pair_at(t, at, i);
			int own = p->word && home_of(s, p->key) == home;
			if (!is_free(t, p, v)) {
				w.needed = own ? d : w.needed;
			} else if (!w.place) {
				w.place = p;
				w.past = d;
			} else if (own) {   /* so that the reach falls again as keys die */
				lose(t, p, v->clock);
			}
		}
	return w;
}

/* All are in use: have that of the least recently seen. */
static void evict(const struct neap_slot *s, struct neap_stripe *t, uint32_t home, struct walk *w)
{
	uint32_t least = 0, lines = lines_of(s);
	for (uint32_t i = 1; i < s->stripes.places; i++)
		least = t->seen[i] < t->seen[least] ? i : least;
	w->place = &t->pair[least];
	w->past = (least / NEAP_STRIPE_WAYS + lines - home) % lines;
}

int64_t *neap_stripe_place(const struct neap_slot *s, struct neap_stripe *t, uint64_t key,
			   struct neap_visit *v)
{
	uint32_t home = home_of(s, key);
	struct walk w = walk(s, t, home, v);
	if (!w.place && v->evicts) {
		evict(s, t, home, &w);
		v->evicted++;
	}
	if (!w.place)
		return NULL;
	lose(t, w.place, v->clock);
	t->reach[home] = (uint8_t)(w.past > w.needed ? w.past : w.needed);
	barrier();
	w.place->key = key;
	barrier();
	neap_stripe_see(t, &w.place->word, v->now);
	return &w.place->word;
}

void neap_stripe_hint(const struct neap_slot *s, uint64_t key)
{
	struct neap_stripe *t = neap_stripe_of(s, key);
	uint32_t home = home_of(s, key);
	__builtin_prefetch(t, 1);
	__builtin_prefetch(&t->reach[home]);
	__builtin_prefetch(pair_at(t, home, 0), 1);
}
