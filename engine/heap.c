/* SPDX-License-Identifier: MIT */
/* heap.c - which of many comes first: a pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986).
 *
 * Each record points to its first child, its next sibling and back. Nothing is asked but to put one
 * in, take any one out, and look at the first: adding is one comparison, taking out O(log n)
 * amortised, and it is no more than a list while things come in order. A binary heap would need
 * an array that grows, and a back pointer per record that every move rewrites; a balanced tree
 * keeps an order of all, which nobody asks for.
 *
 * Names, not pointers: the records may move as a whole. One record may be in several heaps, by a
 * node for each.
 */
#include "heap.h"

static uint32_t meld(struct neap_nodes in, uint32_t a, uint32_t b)
{
	if (!a || !b)
		return a ? a : b;
	if (neap_node_before(neap_node_at(in, b), neap_node_at(in, a))) {
		uint32_t swap = a;
		a = b;
		b = swap;
	}
	struct neap_node *top = neap_node_at(in, a), *under = neap_node_at(in, b);
	under->sibling = top->child;
	under->back = a;
	if (top->child)
		neap_node_at(in, top->child)->back = b;
	top->child = b;
	return a;
}

/* Meld a list of siblings, in pairs from the left, then all from the right: what makes it log n. */
static uint32_t gather(struct neap_nodes in, uint32_t list)
{
	uint32_t pairs = 0;   /* a stack, linked by sibling */
	while (list) {
		uint32_t a = list, b = neap_node_at(in, a)->sibling;
		list = b ? neap_node_at(in, b)->sibling : 0;
		neap_node_at(in, a)->sibling = 0;
		if (b)
			neap_node_at(in, b)->sibling = 0;
		uint32_t pair = meld(in, a, b);
		neap_node_at(in, pair)->sibling = pairs;
		pairs = pair;
	}
	uint32_t first = 0;
	while (pairs) {
		uint32_t next = neap_node_at(in, pairs)->sibling;
		neap_node_at(in, pairs)->sibling = 0;
		first = meld(in, first, pairs);
		pairs = next;
	}
	return first;
}

void neap_heap_add(struct neap_nodes in, uint32_t *first, uint32_t name)
{
	struct neap_node *n = neap_node_at(in, name);
	n->child = n->sibling = n->back = 0;
	*first = meld(in, *first, name);
}

void neap_heap_remove(struct neap_nodes in, uint32_t *first, uint32_t name)
{
	struct neap_node *n = neap_node_at(in, name);
	uint32_t children = gather(in, n->child);
	if (*first == name) {
		*first = children;
	} else {
		struct neap_node *back = neap_node_at(in, n->back);
		if (back->child == name)
			back->child = n->sibling;
		else
			back->sibling = n->sibling;
		if (n->sibling)
			neap_node_at(in, n->sibling)->back = n->back;
		*first = meld(in, *first, children);
	}
	if (*first)
		neap_node_at(in, *first)->back = 0;
	n->child = n->sibling = n->back = 0;
}

int neap_node_check(struct neap_nodes in, uint32_t first, uint32_t name)
{
	const struct neap_node *n = neap_node_at(in, name);
	if ((n->back == 0) != (first == name) || (first == name && n->sibling))
		return NEAP_ECORRUPT;
	if (n->back && neap_node_at(in, n->back)->child != name &&
	    neap_node_at(in, n->back)->sibling != name)
		return NEAP_ECORRUPT;
	if (n->child && neap_node_at(in, n->child)->back != name)
		return NEAP_ECORRUPT;
	for (uint32_t s = n->child; s; s = neap_node_at(in, s)->sibling) {
		const struct neap_node *c = neap_node_at(in, s);
		const struct neap_node *next = neap_node_at(in, c->sibling);
		if (neap_node_before(c, n) || (c->sibling && next->back != s))
			return NEAP_ECORRUPT;
	}
	return NEAP_OK;
}
