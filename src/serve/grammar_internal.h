/* grammar_internal.h - what a grammar is made of, for its machine. */
#ifndef MN_SERVE_GRAMMAR_INTERNAL_H
#define MN_SERVE_GRAMMAR_INTERNAL_H

#include "serve/grammar.h"

typedef enum grammar_kind { NODE_BYTES, NODE_EITHER, NODE_CALL, NODE_RETURN } grammar_kind;
typedef struct grammar_node {
  grammar_kind kind;
  uint8_t low, high;
  mn_bytes_node next;
  int32_t other; /* EITHER: the other way, or none; CALL: the rule */
} grammar_node;

struct mn_grammar {
  grammar_node *nodes;
  mn_bytes_node *rules;
  int32_t n, cap, n_rules, cap_rules, begin;
  mn_status fault;
};

#endif
