/* SPDX-License-Identifier: MIT */
/* faces.c - what a key has in a table that processes share, and its way back there.
 *
 * A face is put together from one word of the table (stripes.c), by who is alone in its stripe for
 * that moment, and again by who takes: he stays in until the word is written.
 *
 * Of a rate there is one word for a key. Permits have holders, so that they come back when one dies:
 * there a key has as many words as processes hold some of it, each with its holder and how many,
 *
 *      "ann"  [process 3: 2]  [process 7: 1]        3 are out; process 7 may give back 1
 *
 * and what is out is their sum, counted anew by whoever comes. So to take or give is to write one
 * word, the own, and to give back what the dead held is to write 0 to each of theirs: done or not
 * done, whoever is killed, and nothing is to be undone.
 *
 * A table may also hold bare words, for who has an arithmetic of his own: he reads one, and writes
 * another if it is still what he read.
 */
#include "keyed.h"
#include "change.h"
#include "keys.h"
#include "segment.h"

static const int64_t MOST_HELD = (INT64_C(1) << NEAP_HOLDER_SHIFT) - 1;

static int has_holders(const struct neap_slot *s) { return s->limiter.kind == NEAP_SEMAPHORE; }

/* Words alone have debts to be forgotten. */
static struct neap_visit visit_of(const struct neap_keyed *k, neap_ns now)
{
	struct neap_visit v;
	neap_visit_begin(&v, k->slot->limiter.kind == NEAP_GCRA ? k->idle_ns : 0, now);
	v.evicts = k->full == NEAP_LEAST_RECENT && !has_holders(k->slot);
	v.holder = has_holders(k->slot) ? neap_guard_record(&k->slot->limiter) : 0;
	return v;
}

/* ---- faces ---- */

void neap_keyed_hint(const struct neap_keyed *k, uint64_t key)
{
	if (k->keys)
		neap_keys_hint(k->keys, key);
	else if (k->slot)
		neap_stripe_hint(k->slot, key);
}

int64_t *neap_face_entry(struct neap_face *f)
{
	if (!f->stripe)
		return neap_keys_at(f->of->keys, f->key, f->clock);
	struct neap_visit v = visit_of(f->of, f->now);
	v.clock = f->clock;
	int64_t *word = neap_stripe_place(f->slot, f->stripe, f->key, &v);
	f->of->evicted += v.evicted;
	return word;
}

static int64_t held(int32_t holder, int64_t permits)
{
	permits = permits < MOST_HELD ? permits : MOST_HELD;
	return permits > 0 ? (int64_t)holder << NEAP_HOLDER_SHIFT | permits : 0;
}

int64_t neap_face_out(const struct neap_face *f)
{
	return f->limiter.as.word - (f->stripe ? f->others : 0);
}

/* Was its word as good as none, 1 ns ago, too? Then the key begins anew. */
static int is_new(const struct neap_face *f)
{
	return *f->word <= f->clock &&
	       *f->word <= neap_gcra_clock(&f->limiter.as.gcra, f->now > 0 ? f->now - 1 : 0);
}

void neap_face_write(struct neap_face *f)
{
	if (!f->word)
		return;
	int64_t word = f->limiter.as.word;
	if (f->stripe && has_holders(f->slot))
		word = held(f->holder, neap_face_out(f));
	else if (f->stripe && is_new(f))
		neap_stripe_see(f->stripe, f->word, f->now);
	*f->word = word;
}

int neap_face_before(const struct neap_face *f, const struct neap_face *g)
{
	return neap_stripe_before(f->slot, f->stripe, g->slot, g->stripe);
}

static neap_ns least_of(neap_ns a, neap_ns b) { return a < b ? a : b; }

static void enter_rate(struct neap_face *f, struct neap_visit *v)
{
	struct neap_gcra *g = &f->limiter.as.gcra;
	int64_t least, seen_us;
	*g = *neap_stripe_limit(f->stripe);
	f->clock = v->clock = neap_gcra_clock(g, v->now);
	f->word = neap_stripe_find(f->slot, f->stripe, f->key, v);
	g->tat = f->word ? *f->word : neap_stripe_lost(f->stripe, f->clock);
	if (f->word || neap_stripe_room(f->slot, f->stripe, v, &least, &seen_us))
		return;
	f->room_at = neap_gcra_reaches(g, least);
	if (v->idle_us)
		f->room_at = least_of(f->room_at, (seen_us + v->idle_us) * 1000);
}

static void enter_permits(struct neap_face *f, const struct neap_visit *v)
{
	const struct neap_limiter *l = &f->slot->limiter;
	struct neap_semaphore *s = &f->limiter.as.semaphore;
	int64_t version, least, seen_us;
	do {
		version = neap_guard_look(l);
		s->limit = l->as.semaphore.limit;
		s->overdraw = l->as.semaphore.overdraw;
	} while (neap_guard_moved(l, version));
	f->clock = 0;
	f->holder = v->holder;
	f->word = neap_stripe_find(f->slot, f->stripe, f->key, v);
	s->in_use = neap_stripe_permits(f->slot, f->stripe, f->key);
	f->others = s->in_use - (f->word ? *f->word & MOST_HELD : 0);
	if (!f->word && !neap_stripe_room(f->slot, f->stripe, v, &least, &seen_us))
		f->room_at = neap_on_give;
}

void neap_face_enter(struct neap_face *f, neap_ns now)
{
	struct neap_visit v = visit_of(f->of, now);
	neap_stripe_enter(f->slot, f->stripe);
	f->now = now;
	f->room_at = 0;
	if (has_holders(f->slot))
		enter_permits(f, &v);
	else
		enter_rate(f, &v);
}

void neap_face_leave(struct neap_face *f)
{
	f->word = NULL;
	neap_stripe_leave(f->stripe);
}

struct neap_limiter *neap_face_share(struct neap_face *f, neap_ns now, int how)
{
	struct neap_keyed *k = f->of;
	f->slot = k->slot;
	f->limiter = (struct neap_limiter){.kind = f->slot->limiter.kind};
	f->stripe = neap_stripe_of(f->slot, f->key);
	f->instead = k->full == NEAP_SHARED ? &k->slot->limiter : NULL;
	neap_face_enter(f, now);
	if (f->word && how == NEAP_WANT)
		neap_stripe_see(f->stripe, f->word, now);
	neap_face_leave(f);
	if (!f->room_at)
		return &f->limiter;
	*(f->instead ? &k->shares : &k->refused) += how == NEAP_WANT;
	return f->instead ? f->instead : &f->limiter;
}

/* ---- bare words ---- */

/* A key's in a table of others, by who is alone there. */
struct bare {
	struct neap_stripe *stripe;
	struct neap_visit visit;
	int64_t *word;            /* NULL: there is none */
	int64_t is, own;          /* what is said of it, and what of that is this process's */
};

static void enter(struct bare *b, const struct neap_keyed *k, uint64_t key, int64_t clock)
{
	const struct neap_slot *s = k->slot;
	b->stripe = neap_stripe_of(s, key);
	b->visit = visit_of(k, 0);
	b->visit.clock = clock;
	neap_stripe_enter(s, b->stripe);
	b->word = neap_stripe_find(s, b->stripe, key, &b->visit);
	b->own = !b->word ? 0 : has_holders(s) ? *b->word & MOST_HELD : *b->word > clock ? *b->word : 0;
	b->is = has_holders(s) ? neap_stripe_permits(s, b->stripe, key) : b->own;
}

int64_t neap_keyed_word(struct neap_keyed *k, uint64_t key, int64_t clock)
{
	if (!k->slot) {
		const int64_t *word = neap_keys_find(k->keys, key, clock);
		return word ? *word : 0;
	}
	struct bare b;
	enter(&b, k, key, clock);
	neap_stripe_leave(b.stripe);
	return b.is;
}

static int swap_own(struct neap_keyed *k, uint64_t key, int64_t clock, int64_t from, int64_t to)
{
	if (neap_keyed_word(k, key, clock) != from)
		return 0;
	int64_t *word = neap_keys_at(k->keys, key, clock);
	if (word)
		*word = to;
	return word ? 1 : NEAP_EFULL;
}

/* Write what makes it 'to'. */
static int put(struct bare *b, struct neap_keyed *k, uint64_t key, int64_t to)
{
	int64_t own = b->own + to - b->is;
	if (own < 0 || own > (has_holders(k->slot) ? MOST_HELD : INT64_MAX))
		return NEAP_ERANGE;
	if (b->word)
		neap_stripe_see(b->stripe, b->word, 0);
	else
		b->word = neap_stripe_place(k->slot, b->stripe, key, &b->visit);
	if (!b->word)
		return NEAP_EFULL;
	k->evicted += b->visit.evicted;
	*b->word = has_holders(k->slot) ? held(b->visit.holder, own) : to;
	return 1;
}

int neap_keyed_swap(struct neap_keyed *k, uint64_t key, int64_t clock, int64_t from, int64_t to)
{
	if (!k->slot)
		return swap_own(k, key, clock, from, to);
	struct bare b;
	enter(&b, k, key, clock);
	int status = b.is == from ? put(&b, k, key, to) : 0;
	neap_stripe_leave(b.stripe);
	return status;
}
