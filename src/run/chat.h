/* chat.h - a dialogue as the tokens that a model reads: its messages through a chat template and a tokenizer, and what ends an answer.
 *
 * Messages are JSON as OpenAI's interface has them: a list of {role, content, ...}. Content in parts of text is joined; images and sounds are
 * refused. What a person wrote never becomes a special token, however it is spelled: only the template writes those. Arguments of tool
 * calls are handed to the template in the form that it can write, as a map or as text; which one is tried out once. */
#ifndef MN_CHAT_H
#define MN_CHAT_H

#include "checkpoint/bundle.h"
#include "format/template.h"

typedef struct mn_chat_format mn_chat_format;

/* Of a bundle with a tokenizer. template: a file with another template than the model's own; NULL: that one. MN_ERR_CONFIG where there is
 * none. The bundle must outlive it; any number of threads may use one. */
mn_status mn_chat_format_new(const mn_bundle *bundle, const char *template_file, mn_chat_format **out);
/* The same from a text. `name` is for messages. */
mn_status mn_chat_format_from(const mn_bundle *bundle, const char *name, const char *text, size_t n, mn_chat_format **out);
void mn_chat_format_free(mn_chat_format *f); /* may be NULL */
const mn_template *mn_chat_format_template(const mn_chat_format *f);

typedef struct mn_chat_request {
  const mn_value *messages; /* a list of maps                                                              */
  const mn_value *tools;    /* functions that may be called, as the template takes them; NULL: none          */
  const mn_value *values;   /* a map of more that the template asks for, such as enable_thinking; NULL: none  */
  bool answers;             /* the assistant's turn begins at the end                                       */
  int64_t now;              /* seconds since 1970; 0: the clock                                              */
} mn_chat_request;

/* A map's keys are values that the template asks for, and no names of what it is given anyway. MN_ERR_CONFIG: which is not. */
mn_status mn_chat_check_values(const mn_chat_format *f, const mn_value *values);

/* Appends the text, and appends its tokens. MN_ERR_CONFIG: the template, or this file, refuses these messages. */
mn_status mn_chat_text(const mn_chat_format *f, const mn_chat_request *r, mn_text *out);
mn_status mn_chat_tokens(const mn_chat_format *f, const mn_chat_request *r, mn_ids *out);
typedef struct mn_chat_known { /* what the model has read and said: a text, and the tokens it was */
  const char *text;            /* NULL: what the tokens spell */
  size_t n;
  const int32_t *tokens;
  int64_t n_tokens;
} mn_chat_known;
/* The tokens of a dialogue that goes on: where its text begins with the known one, those tokens stay and only what follows is cut into tokens,
 * so that an answer which another cut would make of other tokens need not be read again. known NULL: nothing. text (may be NULL): the text is
 * appended. */
mn_status mn_chat_tokens_on(const mn_chat_format *f, const mn_chat_request *r, const mn_chat_known *known, mn_text *text, mn_ids *out);

/* The token ends an answer: one that the checkpoint names, or the one that the template writes behind an answer. */
bool mn_chat_ends(const mn_chat_format *f, int32_t token);
/* Where no token does: the text that the template writes behind an answer; "": none. */
const char *mn_chat_end_text(const mn_chat_format *f);
/* Tokens that end an answer, in all. */
int mn_chat_end_tokens(const mn_chat_format *f, const int32_t **out);

#endif
