/* SPDX-License-Identifier: MIT */
/* heap.h - which of many comes first. Private to ring 1; heap.c has the essay. */
#ifndef NEAP_HEAP_H
#define NEAP_HEAP_H

#include "neap.h"

__extension__ typedef __int128 neap_sum;   /* of many costs, or of instants */

/* One record's place in one heap. Its rank is set before it is put in, and stays while it is. */
struct neap_node {
	neap_sum rank;                  /* lower is first; */
	uint64_t arrival;               /* of equals, the lower */
	uint32_t child, sibling, back;  /* back: its parent, or the sibling before it */
};

/* Where records have their nodes: that of record 'name', from 1, is at first + name * size. */
struct neap_nodes {
	char *first;
	size_t size;
};

static inline struct neap_node *neap_node_at(struct neap_nodes in, uint32_t name)
{
	return (struct neap_node *)(void *)(in.first + name * in.size);
}

static inline int neap_node_before(const struct neap_node *a, const struct neap_node *b)
{
	return a->rank != b->rank ? a->rank < b->rank : a->arrival < b->arrival;
}

/* Into and out of the heap of which *first is the first, 0 when it is empty. */
void neap_heap_add(struct neap_nodes in, uint32_t *first, uint32_t name);
void neap_heap_remove(struct neap_nodes in, uint32_t *first, uint32_t name);
/* A node that is in this heap: NEAP_OK, or NEAP_ECORRUPT when its links are wrong. */
int neap_node_check(struct neap_nodes in, uint32_t first, uint32_t name);

#endif
