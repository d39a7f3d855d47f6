/* teacher.h - trained models that an objective learns from: opened from their directories, built beside the model that is trained, on
 * the same batches, and never trained or saved with it. */
#ifndef MN_TEACHER_H
#define MN_TEACHER_H

#include "model/params.h"
#include "objective/objective.h"

typedef struct mn_teachers { /* one for each objective that names a directory; NULL elsewhere */
  mn_model *model[MN_OBJECTIVES];
  mn_params *params[MN_OBJECTIVES];
} mn_teachers;

/* tokenizer: hash of the student's; "": it has none. A teacher of another vocabulary or tokenizer is MN_ERR_CONFIG. Close also after a
 * failure. */
mn_status mn_teachers_open(const mn_objectives *o, const mn_model *student, mn_backend *b, const char *tokenizer, mn_teachers *out);
/* What is learned depends on them as on the data: `hash` of the data becomes that of both. Without teachers it stays. */
mn_status mn_teachers_hash(const mn_teachers *t, char hash[MN_HASH_HEX]);
void mn_teachers_close(mn_teachers *t); /* fine when all is zero */
/* Points the teachers' parameters of a graph at their memory in the plan. */
void mn_teachers_bind(const mn_teachers *t, const mn_judged *j, mn_plan *plan);

#endif
