/* model.h - a model: of some kind, made from a recipe. A kind (decoder, encoder, ...) is one file that defines
 * `const mn_model_def mn_model_<name>`; the build finds it and puts it into the table below. It says what goes in (input
 * ports), what comes out (output ports), and builds the one from the other in a scope. Who runs a model, feeds it or judges it
 * knows ports by name and nothing of the kind. A model is itself a segment in, a segment out, so it can stand inside another. */
#ifndef MN_MODEL_H
#define MN_MODEL_H

#include "model/block.h"
#include "nn/linear.h"

typedef struct mn_model mn_model;

/* ---- ports: what goes into a model and comes out, by name ---- */
enum { MN_PORT_TAUGHT = 2 };
typedef struct mn_port {
  const char *name; /* "tokens"                                                                                     */
  mn_dtype dtype;   /* f32 stands for the scope's exact type                                                        */
  const char *axes; /* a letter for each axis: "BT", "BTC". B, T (tokens) and S (source) are chosen by who builds, the
                     * others by the model (mn_model_def.size)                                                      */
  int optional;     /* true: an input that may be left out; an output that is not always there. MN_PORT_TAUGHT: an input that training
                     * must have and nobody else needs                                                              */
  const char *help; /* one line                                                                                     */
} mn_port;

typedef struct mn_sizes { /* of the axes that are free */
  int64_t B, T, S;
} mn_sizes;

enum { MN_IO_MAX = 16 };
typedef struct mn_model_io { /* tensors by the names of ports */
  int n;
  const char *name[MN_IO_MAX];
  mn_tensor *tensor[MN_IO_MAX];
} mn_model_io;
mn_tensor *mn_io_get(const mn_model_io *io, const char *name); /* NULL: not there */
void mn_io_put(mn_model_io *io, const char *name, mn_tensor *t);

/* ---- kinds ---- */
typedef enum mn_trunk {                 /* which keys a kind shares with others */
                        MN_TRUNK_NONE,  /* none: a model around others          */
                        MN_TRUNK_PLAIN, /* a stack of blocks                    */
                        MN_TRUNK_TOKENS /* and a vocabulary before it           */
} mn_trunk;

typedef struct mn_model_def {
  const char *name;    /* the recipe's model.type                                        */
  const char *summary; /* one line                                                       */
  const char *paper;   /* authors, year, arXiv id; NULL                                  */
  mn_trunk trunk;
  bool source;                     /* its blocks have a source to attend to                       */
  bool conditioned;                /* its blocks may have a condition, which comes by an input of that name (mn_model_condition) */
  size_t config_size;              /* of the keys that are the kind's own; 0: none                 */
  const mn_field *fields;          /* of them; NULL: none                                          */
  const mn_port *inputs, *outputs; /* each list closed by {0}; the first is the main one          */
  const char *kept;                /* an input that a stream keeps: segments after the first may leave it out; NULL: none */
  /* Size of an axis that the model decides; 0: it is free. NULL: V is vocab_size and D d_model, the others free. */
  int64_t (*size)(const mn_model *m, char axis);
  /* How long a free axis may be in a stream. NULL: any. */
  int64_t (*most)(const mn_model *m, char axis);
  /* Sequences of more tokens than this are whole multiples of it: the turns of a dialogue. NULL: they have any length. */
  int64_t (*whole)(const mn_model *m);
  /* How many ids an i32 input chooses among; 0: it holds none (a length). NULL: vocab_size where it is `tokens`, else 0. */
  int64_t (*ids)(const mn_model *m, const mn_port *port);
  /* MN_TRUNK_TOKENS: does it read tokens, by its keys? Else it has no vocabulary. NULL: always. */
  bool (*reads_tokens)(const mn_model *m);
  /* After keys and vocabulary, before blocks: fills what was left open and refuses what cannot be. NULL: nothing. */
  mn_status (*check)(mn_model *m, const mn_value *map, const char *where);
  /* For config.json: own keys that hold maps (MN_TYPE_VALUE), spelled out in `own`, a copy of m->own. NULL: none. */
  mn_status (*spell)(mn_arena *arena, const mn_model *m, void *own);
  /* Reads inputs, puts outputs, moves the position on. Inputs that are not optional are there and have the ports' shapes. */
  void (*build)(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out);
  /* Why this model is no stream, as the end of a sentence ("its classes are pooled from a whole sequence"); NULL: it is one, as
   * far as the kind is concerned. No function: it is. */
  const char *(*not_causal)(const mn_model *m);
  /* A kind with the output `running`: how many places it is behind, so that the first so many say nothing. NULL: 0. */
  int64_t (*late)(const mn_model *m);
} mn_model_def;

int mn_model_count(void);
const mn_model_def *mn_model_at(int i);

typedef enum mn_position_kind { MN_POSITIONS_NONE, MN_POSITIONS_LEARNED, MN_POSITIONS_SINUSOIDAL } mn_position_kind;

typedef struct mn_model_config { /* the keys that kinds share */
  const char *type;
  int64_t vocab_size, d_model, layers;
  bool tie_embeddings, scale_embeddings, embed_norm;
  int positions; /* mn_position_kind */
  int64_t max_positions;
  int norm; /* mn_norm_kind of the blocks and before the head */
  double norm_eps, init_std, embedding_scale, logit_softcap;
  int64_t condition_classes, condition_width; /* what a condition is: one of so many classes, or so many numbers; 0: it is not that */
  const mn_value *linear, *block, *blocks;    /* while parsing: see mn_stack_config */
} mn_model_config;

struct mn_model {
  mn_arena *arena;
  const mn_model_def *def;
  mn_model_config config;
  void *own;                       /* the kind's keys: def->config_size bytes                        */
  const mn_port *inputs, *outputs; /* def's; a kind whose ports depend on its keys sets them in check. Inputs: with `condition` where
                                    * blocks have one */
  mn_stack stack;
  mn_linear_rules linear; /* how its projections are made */
  mn_model *base;         /* a model inside, in the scope `base`; NULL: none */
  const mn_value *reads;  /* what its inputs were made of in training, and what its classes are called (source/features.h); a training sets
                           * it, config.json keeps it; NULL: nobody said */
};

extern const mn_field mn_model_fields[]; /* of MN_TRUNK_TOKENS */
const mn_field *mn_trunk_fields(mn_trunk t);

/* map: the recipe's `model`; its `type` names the kind, a decoder where there is none. vocab_size 0 in the map is filled with
 * `vocab_size` (the tokenizer's). Every fault is named with file, line and key. Free with mn_model_free. */
mn_status mn_model_parse(const mn_value *map, const char *where, int64_t vocab_size, mn_model **out);
void mn_model_free(mn_model *m);
const mn_value *mn_model_to_value(mn_arena *arena, const mn_model *m);  /* reading it back gives the same model */
const mn_value *mn_model_to_config(mn_arena *arena, const mn_model *m); /* config.json's content: {model: ..., reads: ...} */
/* The content of the config.json at `path`: a model, perhaps what it reads, and nothing else. *sealed (may be NULL): it had a checksum. */
mn_status mn_model_read_config(mn_arena *arena, const char *path, const mn_value **root, bool *sealed);

const mn_port *mn_model_input(const mn_model *m, const char *name); /* NULL: it has none of that name */
const mn_port *mn_model_output(const mn_model *m, const char *name);
/* The port's shape; an axis that the model decides is as it says, whatever `free` holds. */
mn_shape mn_model_shape(const mn_model *m, const mn_port *port, mn_sizes free);
int64_t mn_model_ids(const mn_model *m, const mn_port *port); /* as mn_model_def.ids */
int64_t mn_model_most(const mn_model *m, char axis);          /* as mn_model_def.most; INT64_MAX: any */
int64_t mn_model_whole(const mn_model *m);                    /* as mn_model_def.whole; 1: any length */
/* The same for people: "[B, T, 3]", with a letter where the axis is free and `free` does not know it. */
const char *mn_model_axes(const mn_model *m, const mn_port *port, mn_sizes free, char buf[96]);
/* What an input holds, [B,...] i32: ids of its vocabulary, lengths within the row. `where` begins the message: the name of a file. */
mn_status mn_model_check_input(const mn_model *m, const mn_port *port, mn_sizes sizes, const int32_t *x, int64_t n, const char *where);
/* Inputs of these sizes as leaves of the scope's graph: all, those without which nothing can be built, or those of a stream's
 * later segments. */
typedef enum mn_inputs { MN_INPUTS_ALL, MN_INPUTS_NEEDED, MN_INPUTS_LATER } mn_inputs;
void mn_model_inputs(mn_scope *s, const mn_model *m, mn_sizes sizes, mn_inputs which, mn_model_io *io);
/* What a model says: logits [B,T,vocab_size] where it has hidden and head, else its first output. Exact type. */
mn_tensor *mn_model_answer(mn_scope *s, const mn_model_io *out);
/* Builds the model: outputs from inputs, whose names and shapes are checked. `out` begins empty. */
void mn_model_build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out);
/* Builds it over inputs as small as they can be: parameters and states are then known to the scope. */
void mn_model_declare(mn_scope *s, const mn_model *m);
/* Lengths in tokens that its parts have, such as a chunk, against the sequences they will see; map: what it was parsed from. */
mn_status mn_model_check_lengths(const mn_model *m, const mn_value *map, int64_t seq_len);
/* MN_OK when the model is a stream that can be cut anywhere; else MN_ERR_CONFIG with the reason. */
mn_status mn_model_check_stream(const mn_model *m);
/* What a training of this model has to fear before it begins: the first layer's doubt that there is (mixer.h), or nothing. */
void mn_model_doubt(const mn_model *m, mn_text *out);
/* The mixer that the parameter, state or report `name` belongs to ("layers.3.mixer.q_proj.weight"); NULL: none. */
const mn_mixer *mn_model_owner(const mn_model *m, const char *name);

/* ---- what kinds build with ---- */
/* In check, for a kind around a causal decoder: m->base from the key `base`, and from it m's vocabulary and width. Refused by name: what
 * is none, is not causal, or has a condition. */
mn_status mn_model_parse_base(mn_model *m, const mn_value *map, const char *where, const mn_value *base);
/* What `tokens`, or `frames` [B,T,C], are as the stack reads them: [B,T,D], exact type. */
mn_tensor *mn_model_read(mn_scope *s, const mn_model *m, const mn_model_io *in);
mn_tensor *mn_model_embedding(mn_scope *s, const mn_model *m); /* [vocab_size, D], memory's type */
/* tokens i32 [B,T] -> what the stack reads [B,T,D], exact type: embedded, scaled and placed as the keys say. */
mn_tensor *mn_model_embed(mn_scope *s, const mn_model *m, mn_tensor *tokens);
mn_tensor *mn_model_scaled(mn_scope *s, const mn_model *m, mn_tensor *e); /* an embedding, by scale_embeddings or embedding_scale */
/* x [B,T,D] exact type with the positions' vectors added, and normed where embed_norm says so. */
mn_tensor *mn_model_place(mn_scope *s, const mn_model *m, mn_tensor *x);
/* What the rows are told, [B,D] exact type, of the input `condition`: the vector of its class, or a projection of its numbers. NULL: the
 * model's blocks have none. */
mn_tensor *mn_model_condition(mn_scope *s, const mn_model *m, const mn_model_io *in);

/* Places of a row that are not there, as an input `masks` i32 [B,T] says (1: there) beside `length`. Blocks are shown what is there and
 * nothing else: places are gathered to the front of their row, which is then so long, and what comes out goes back to where it was. So
 * every mixer skips what is missing, and writes nothing of it into a state. What precedes a gap stands next to what follows it, for
 * convolutions and for rotary positions, which count what is there; positions that were added before are those of the whole row. */
typedef struct mn_places {
  mn_tensor *rank;   /* i32 [B,T]: where among those that are there; -1: it is not. NULL: all are */
  mn_tensor *length; /* i32 [B], how many are there; NULL: all */
} mn_places;
/* masks and length: NULL where the input is not there. Not of a stream whose model adds positions: they would not know the gaps. */
mn_places mn_model_places(mn_scope *s, const mn_model *m, mn_tensor *masks, mn_tensor *length);
mn_tensor *mn_places_gather(mn_scope *s, const mn_places *p, mn_tensor *x); /* [B,T,D], those that are there first */
mn_tensor *mn_places_spread(mn_scope *s, const mn_places *p, mn_tensor *h); /* [B,T,D] back; zeros where nothing is there */

/* What comes out of the stack, x [B,T,D], after the last norm (where blocks do not end with one) in the compute type. */
mn_tensor *mn_model_norm(mn_scope *s, const mn_model *m, mn_tensor *x);

/* Keys of who reads either tokens or frames, and judges what was read as one of several classes. */
typedef enum mn_pooling { MN_POOL_MEAN, MN_POOL_LAST, MN_POOL_FIRST, MN_POOL_NONE } mn_pooling;
/* h [B,T,D] -> [B,D], of the first `length` (i32 [B]; NULL: all) positions; MN_POOL_NONE: h. */
mn_tensor *mn_pooled(mn_scope *s, mn_pooling how, mn_tensor *h, mn_tensor *length);

/* Of a decoder: what comes out of its stack as its head projects it, in the compute type: normed, and scaled by logit_scale. */
mn_tensor *mn_decoder_norm(mn_scope *s, const mn_model *m, mn_tensor *x);
/* A decoder over what is embedded already, x [B,T,D] exact type -> h [B,T,D] after the last norm, compute type. */
mn_tensor *mn_decoder_run(mn_scope *s, const mn_model *m, mn_tensor *x);

/* ---- a decoder's steps, for who judges or samples it without going through ports ---- */
/* tokens i32 [B,T] -> h [B,T,D] after the last norm, compute type: what the head projects. */
mn_tensor *mn_model_hidden(mn_scope *s, const mn_model *m, mn_tensor *tokens);
mn_tensor *mn_model_head(mn_scope *s, const mn_model *m);                     /* [vocab_size, D], memory's type */
mn_tensor *mn_model_apply(mn_scope *s, const mn_model *m, mn_tensor *tokens); /* logits [B,T,vocab_size], exact type */
/* sum over tokens of weight * nll, and nll per token [B*T]. target i32 [B,T] (negative: ignored), weight [B,T] or NULL. */
mn_tensor *mn_model_loss(mn_scope *s, const mn_model *m, mn_tensor *tokens, mn_tensor *target, mn_tensor *weight, mn_tensor **nll);
mn_tensor *mn_logits(mn_scope *s, mn_tensor *hidden, mn_tensor *head); /* [B,T,D], [V,D] -> [B,T,V], exact type */

#endif
