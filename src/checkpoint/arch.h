/* arch.h - the contract of an architecture: what a checkpoint of some program's model is as a model of ours. An architecture is one file
 * src/checkpoint/arch_<name>.c with `const mn_arch_def mn_arch_<name> = {`; the build finds it.
 *
 * It says which names it answers to, makes a recipe's `model` of the settings, and lists tensors: what each of our parameters is called
 * in either form, and how its numbers differ there. The list is read both ways, to open a checkpoint and to write one. */
#ifndef MN_ARCH_H
#define MN_ARCH_H

#include "checkpoint/settings.h"
#include "model/params.h"

/* How a file's tensor differs from the parameter [out, ...]. Several may hold. */
enum {
  MN_T_TRANSPOSED = 1, /* it is [in, out]                                                                          */
  MN_T_LESS_ONE = 2,   /* it holds the parameter - 1: norms whose gain is 1 + w                                    */
  MN_T_ROTARY = 4,     /* rows of a head that are turned, R, stand as neighbours: 0, R/2, 1, R/2 + 1, ... of ours  */
  MN_T_PART = 8,       /* it holds several parameters of the list, one behind the other along their first axis     */
  MN_T_ROWS = 16,      /* of its rows, which are several parameters', the architecture knows where each stands     */
  MN_T_NEG_EXP = 32,   /* it holds -exp(parameter): rates of decay                                                 */
  MN_T_SCALED = 64,    /* the parameter is this, times a number of the settings                                    */
  MN_T_RESHAPED = 128, /* it holds as many elements in another shape                                               */
  MN_T_TURNED = 256,   /* of [H N, R], each of H matrices [N,R] is turned: it is [H,R,N]                           */
  MN_T_COLUMNS = 512,  /* its columns stand in pieces of equal width, and the architecture knows where each stands */
  MN_T_BEHIND = 1024   /* of a row without a parameter: only of layers behind the model's last                     */
};

/* Of several rows for one parameter the first whose tensor is there counts. In names # is a layer's number; a * at the end is any rest, and a name that is * alone is the parameter's own. A
 * file's name with a @, an expert's number, is of as many tensors as the parameter's first axis is long, each one a slice of it. A row without a parameter is of a tensor that may be there and is not needed. */
typedef struct mn_arch_tensor {
  const char *param; /* "layers.#.mixer.q_proj.weight"              */
  const char *hf;    /* "model.layers.#.self_attn.q_proj.weight"    */
  const char *gguf;  /* "blk.#.attn_q.weight"; NULL: it has none    */
  unsigned hf_how, gguf_how;
} mn_arch_tensor;

typedef struct mn_arch_def {
  const char *name;    /* "llama"                                         */
  const char *summary; /* one line: which models                          */
  const char *types;   /* config.json's model_type: words, a space between */
  const char *classes; /* of config.json's architectures: what is opened, where there are several (heads for other ends are refused) */
  const char *gguf;    /* general.architecture: words; NULL: no GGUF     */
  const char *idle;    /* settings that it has and that do not change what the model says: words of both forms; NULL: none */
  const char *prefix;  /* of tensor names in Hugging Face's form, which may be left out: "transformer."; NULL: none */
  /* Of several with the same word: is it this one? NULL: it is what the word says where no other is. */
  bool (*is)(const mn_settings *s);
  /* The recipe's `model`, in s->arena. */
  mn_status (*recipe)(mn_settings *s, const mn_value **out);
  const mn_arch_tensor *tensors; /* closed by {0} */
  /* GGUF's tensors that nothing reads and that other programs refuse a file without: each with another one of the same shape. NULL: none. */
  const char *const *unread;
  /* Settings in the form `to` that no name there says alike (say.h): they come before what has both names. GGUF's keys are without the
   * architecture's word. NULL: there are none. */
  mn_status (*say)(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys);
  /* Is the row one of blocks with this mixer, where parameters of several have one name? NULL: it always is. */
  bool (*belongs)(const mn_mixer *mixer, const mn_arch_tensor *row);
  /* MN_T_RESHAPED: the shape there of a parameter of this one. NULL: files have the parameter's own. */
  void (*shape)(const mn_mixer *mixer, const mn_arch_tensor *row, mn_checkpoint_form form, mn_shape *shape);
  /* MN_T_ROWS: which row of the file's tensor is row r of the parameter, in a block with this mixer. MN_T_COLUMNS: which piece there is piece
   * r of it, where `together` columns are one. */
  int64_t (*place)(const mn_mixer *mixer, const mn_arch_tensor *row, int64_t r);
  int64_t (*together)(const mn_mixer *mixer, const mn_arch_tensor *row);
  /* MN_T_SCALED: what row r of the parameter is multiplied by. `recipe` has checked the settings. */
  double (*scale)(const mn_checkpoint *c, const mn_mixer *mixer, const mn_arch_tensor *row, int64_t r);
} mn_arch_def;

int mn_arch_count(void);
const mn_arch_def *mn_arch_at(int i);

/* The one that the checkpoint says it is; an unknown one is refused with all that are known. */
mn_status mn_arch_of(const mn_settings *s, const mn_arch_def **out);

/* The recipe's `model` of these settings, in s->arena. What is no encoder sees nothing that comes later: settings that say so are refused. */
mn_status mn_arch_recipe(mn_settings *s, const mn_arch_def *a, const mn_value **out);

/* A number of the mixer's configuration, which has this key. */
int64_t mn_arch_mixer_key(const mn_mixer *mixer, const char *key);

/* ---- tensors of a model ---- */
/* Does the name fit the pattern, whose # is a layer's number? layer: that number, -1 where there is none. */
bool mn_arch_fits(const char *pattern, const char *name, int *layer);
enum { MN_ARCH_NAME = 256 };
const char *mn_arch_filled(const char *pattern, int layer, char buf[MN_ARCH_NAME]);                      /* with the number in its place */
const char *mn_arch_filled_with(const char *pattern, int layer, int64_t expert, char buf[MN_ARCH_NAME]); /* with an expert's, too */

typedef struct mn_arch_piece { /* where a parameter's numbers are */
  const mn_arch_tensor *row;
  const mn_checkpoint_tensor *tensor;
  const mn_checkpoint_tensor **each; /* of a name with @: those of all slices, of which `tensor` is the first; else NULL */
  const mn_arch_def *arch;
  const mn_checkpoint *from;
  const mn_mixer *mixer; /* of the parameter's block; NULL: it is of none */
  unsigned how;
  int64_t first;  /* MN_T_PART: its first row there, else 0            */
  int64_t rotary; /* MN_T_ROTARY: rows of a head, K; else 0            */
  int64_t turned; /* ... and how many of them are turned, R            */
} mn_arch_piece;

/* For each of the set's tensors its place; all tensors of the checkpoint are known. pieces: [p->n_all]. Names, shapes and types are
 * checked, and what is missing, not known or of another shape is named with its file. */
mn_status mn_arch_match(const mn_arch_def *a, const mn_checkpoint *c, const mn_model *m, const mn_params *p, mn_arch_piece *pieces);
void mn_arch_pieces_free(int n, mn_arch_piece *pieces);
/* Rows of a head of the parameter, K, and the first of them that MN_T_ROTARY orders, R. */
mn_status mn_arch_rotary(const mn_model *m, const char *param, int64_t *K, int64_t *R);
/* Row r of the parameter that stands there, whose rows are of `width` elements, as f32 or f64 (type). */
mn_status mn_arch_read_row(const mn_arch_piece *piece, int64_t r, int64_t width, mn_dtype type, void *dst);
/* Fills the empty set: tensors that lie in the file as they are wanted are mapped, others are converted. The set takes the checkpoint
 * over, and closes it when it was of no further use. */
mn_status mn_arch_fill(const mn_arch_def *a, mn_checkpoint *c, const mn_model *m, mn_params *p);

/* A checkpoint as a model: mn_model_open_dir's counterpart. */
mn_status mn_checkpoint_model(const char *path, mn_backend *b, mn_dtype dtype, mn_model **model, mn_params **params);

#endif
