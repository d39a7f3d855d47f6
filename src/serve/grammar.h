/* grammar.h - which bytes may come next: rules over bytes, run as a pushdown automaton.
 *
 * A grammar is a graph of nodes: a set of bytes and what follows, two ways, a call of a rule, the end of one. It is built from its end to
 * its beginning: every function takes the node that follows and gives the one that begins. A node's stack of calls says where ends lead.
 *
 * A machine runs it. Its states are sets of (node, stack), found when they are first reached and kept with their transitions, so that a
 * text costs a look at a table for each byte; equal stacks are one. Some hundred thousand states are kept, 16384 of them with what
 * follows; where a mask is asked for, those that nobody holds make room, so that a text may be of any length. A grammar that needs more for one mask, one that
 * goes on in so many ways that a mask would take more than some tenths of a second, and one whose calls begin with themselves are failures, not
 * endless loops. Machines are used by one thread at a time. */
#ifndef MN_SERVE_GRAMMAR_H
#define MN_SERVE_GRAMMAR_H

#include "base/base.h"

typedef struct mn_grammar mn_grammar;
typedef int32_t mn_bytes_node; /* MN_NO_NODE: something failed before; passes through, and mn_grammar_end says what */
enum { MN_NO_NODE = -1 };

enum { MN_GRAMMAR_NODES = 200000 }; /* as many are refused */

/* ---- building ---- */
mn_status mn_grammar_new(mn_grammar **out);
void mn_grammar_free(mn_grammar *g);
mn_bytes_node mn_grammar_range(mn_grammar *g, int low, int high, mn_bytes_node next); /* a byte of [low, high] */
mn_bytes_node mn_grammar_set(mn_grammar *g, const char *bytes, mn_bytes_node next);   /* one of these; zero-terminated */
mn_bytes_node mn_grammar_text(mn_grammar *g, const char *s, size_t n, mn_bytes_node next);
mn_bytes_node mn_grammar_either(mn_grammar *g, mn_bytes_node a, mn_bytes_node b);
/* A place that other nodes lead to before it is known what comes there. */
mn_bytes_node mn_grammar_place(mn_grammar *g);
void mn_grammar_put(mn_grammar *g, mn_bytes_node place, mn_bytes_node to);
/* Rules: numbered from 0. A rule's nodes end with mn_grammar_return. */
int32_t mn_grammar_rule(mn_grammar *g);
mn_bytes_node mn_grammar_return(mn_grammar *g);
void mn_grammar_define(mn_grammar *g, int32_t rule, mn_bytes_node begin);
mn_bytes_node mn_grammar_call(mn_grammar *g, int32_t rule, mn_bytes_node next);
/* The text is what this rule says. MN_ERR_CONFIG: too many nodes; a rule that is not defined. Nothing is built afterwards. */
mn_status mn_grammar_end(mn_grammar *g, int32_t rule);
int64_t mn_grammar_nodes(const mn_grammar *g);

/* ---- running ---- */
typedef struct mn_machine mn_machine;
enum { MN_MACHINE_STATES = 1 << 18 };
mn_status mn_machine_new(const mn_grammar *g, mn_machine **out); /* g outlives it */
void mn_machine_free(mn_machine *m);
int32_t mn_machine_begin(const mn_machine *m);
/* The state after a byte; -1: no text of the grammar goes on so, or the machine failed (mn_machine_status). */
int32_t mn_machine_next(mn_machine *m, int32_t state, unsigned char byte);
/* A state stays what it is until a mask is asked for in another one: who comes back to it later, as of several texts that are read by turns, holds it
 * until then (as often as it leaves it; -1 is none). The first one always stays. */
void mn_machine_hold(mn_machine *m, int32_t state);
void mn_machine_leave(mn_machine *m, int32_t state);
bool mn_machine_whole(const mn_machine *m, int32_t state);   /* the text may end here */
bool mn_machine_goes_on(const mn_machine *m, int32_t state); /* and may be longer */
mn_status mn_machine_status(const mn_machine *m);
/* What was looked at since this was asked last: what a text cost. A text may cost as much as a mask, whatever was read before. */
int64_t mn_machine_take_work(mn_machine *m);

/* ---- tokens ---- */
/* The texts of a vocabulary as a tree, in the order of bytes. */
typedef struct mn_lexicon mn_lexicon;
/* n texts, text(ctx, i, &bytes) NULL: not one that may be said. */
mn_status mn_lexicon_new(int64_t n, const char *(*text)(void *ctx, int32_t i, size_t *bytes), void *ctx, mn_lexicon **out);
void mn_lexicon_free(mn_lexicon *l);
/* The tokens that the machine may be given in a state: bit i % 64 of mask[i / 64], valid until the machine is asked again. NULL: the
 * machine failed. */
const uint64_t *mn_machine_mask(mn_machine *m, int32_t state, const mn_lexicon *l);

#endif
