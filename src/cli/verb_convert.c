/* verb_convert.c - `mneme convert`: a model's file made from another one, in other types of numbers or another form. */
#include "checkpoint/convert.h"
#include "cli/progress.h"
#include "format/gguf.h"
#include "format/quant.h"

#include <stdlib.h>
#include <string.h>

static const mn_option options[] = {
    {"out", "PATH", NULL, "what is made: a GGUF file where the name ends so (.gguf), else a directory of Hugging Face's", 0},
    {"type", "TYPE", NULL, "of the weights: f32, f16, bf16, q8_0, q6_k, q5_k, q4_k ... (each keeps its own unless given)", 0},
    {"tensor", "PATTERN=TYPE", NULL, "tensors whose name fits are of that type, such as 'blk.*.ffn_down.weight=q6_k'", MN_OPTION_REPEATS},
    {0}};
static const char *const examples[] = {"mneme convert model.gguf --out small.gguf --type q4_k",
                                       "mneme convert downloads/llama --out llama.gguf --type q8_0",
                                       "mneme convert model.gguf --out directory",
                                       "mneme convert model.gguf --out small.gguf --type q3_k --tensor '*attn_v.weight=q5_k'", NULL};

static mn_status read_type(const char *name, mn_dtype *out) {
  const mn_gguf_type_info *type;
  MN_TRY(mn_gguf_type_named(name, &type));
  *out = type->dtype;
  if (mn_quant_knows(type->dtype)) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "%s is no type of weights; f32, f16, bf16 and those of blocks (q8_0, q4_k ...) are", name);
}

static mn_status read_rules(const mn_cli *cli, mn_arena *arena, mn_convert_options *o) {
  int n = 0;
  while (mn_cli_nth(cli, "tensor", n)) n++;
  mn_convert_rule *rules = mn_arena_alloc(arena, (size_t)(n + 1) * sizeof *rules);
  if (!rules) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    const char *given = mn_cli_nth(cli, "tensor", i);
    char *pattern = mn_arena_strdup(arena, given), *at = pattern ? strrchr(pattern, '=') : NULL;
    if (!pattern) return MN_ERR_MEMORY;
    if (!at || at == pattern) return mn_fail(MN_ERR_CONFIG, "--tensor %s: must be PATTERN=TYPE, such as 'blk.*.attn_v.weight=q6_k'", given);
    *at = 0;
    rules[i].pattern = pattern;
    MN_TRY(mn_context(read_type(at + 1, &rules[i].type), "--tensor %s", given));
  }
  o->rules = rules;
  o->n_rules = n;
  return MN_OK;
}

static mn_status say(mn_cli *cli, const char *to, const mn_convert_report *r) {
  if (cli->json) {
    json_t *types = json_object();
    for (mn_dtype t = 0; t < MN_ALL_TYPES; t++)
      if (r->tensors_of[t])
        json_object_set_new(types, mn_dtype_name(t),
                            json_pack("{s:I, s:I}", "tensors", (json_int_t)r->tensors_of[t], "bytes", (json_int_t)r->bytes_of[t]));
    return mn_cli_json(cli, json_pack("{s:o, s:i, s:i, s:I, s:I, s:I, s:f, s:o}", "file", mn_cli_text(to), "tensors", r->tensors,
                                      "rewritten", r->rewritten, "values", (json_int_t)r->values, "bytes_before",
                                      (json_int_t)r->bytes_before, "bytes", (json_int_t)r->bytes, "error", r->error, "types", types));
  }
  mn_print("type     tensors           bytes\n");
  for (mn_dtype t = 0; t < MN_ALL_TYPES; t++)
    if (r->tensors_of[t]) mn_print("%-8s %7lld %15zu\n", mn_dtype_name(t), (long long)r->tensors_of[t], r->bytes_of[t]);
  mn_print("%s: %.1f MiB of weights, before %.1f; %.2f bits of a value\n", to, (double)r->bytes / 1048576,
           (double)r->bytes_before / 1048576, r->values ? 8.0 * (double)r->bytes / (double)r->values : 0.0);
  if (r->rewritten) mn_print("%d tensors rewritten; root mean squared error %.4g of the values'\n", r->rewritten, r->error);
  return MN_OK;
}

static mn_status run(mn_cli *cli) {
  const char *to = mn_cli_get(cli, "out"), *type = mn_cli_get(cli, "type");
  mn_convert_options o = {.type = MN_DTYPES};
  mn_convert_report report;
  if (!to) return mn_fail(MN_ERR_CONFIG, "--out is missing: what is to be made, such as model.gguf");
  if (type) MN_TRY(mn_context(read_type(type, &o.type), "--type"));
  mn_arena *arena = mn_arena_new();
  mn_progress *line = mn_progress_new(cli, "convert", "values", 0);
  mn_status status = arena ? read_rules(cli, arena, &o) : MN_ERR_MEMORY;
  if (status == MN_OK && !(o.pool = mn_pool_new(cli->threads))) status = MN_ERR_MEMORY;
  o.watch = (mn_watch){mn_cli_stop_flag(), mn_progress_told, line};
  if (status == MN_OK) status = mn_convert(cli->args[0], to, &o, &report);
  mn_progress_free(line);
  mn_pool_free(o.pool);
  if (arena) mn_arena_free(arena);
  return status == MN_OK ? say(cli, to, &report) : status;
}

const mn_verb mn_verb_convert = {
    .name = "convert",
    .purpose = MN_VERB_USE,
    .summary = "make a model's file from another one, in other types of numbers or another form",
    .usage = "MODEL --out FILE.gguf | DIR [--type TYPE] [options]",
    .about =
        "Reads a GGUF file or a directory of Hugging Face's and writes either; what was written is read again, and must make the same model.\n"
        "Weights become numbers of fewer bits: q8_0 loses next to nothing, q4_k little, q2_k much (docs/formats-gguf.md has figures). Vectors, "
        "norms, routers and small convolutions stay f32; embeddings and heads get more bits than the type says, and rows that are no whole "
        "blocks the nearest type of small blocks. What the blocks cannot hold is found by search: the result does not depend on threads.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_THREADS,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
