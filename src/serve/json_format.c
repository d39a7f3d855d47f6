/* json_format.c - see json_format.h. */
#include "serve/json_format.h"

#include <stddef.h>
#include <string.h>

/* RFC 3339, days as their months have them (Gregorian, from year 1 on). */
#define YEAR      "([0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})"
#define LEAP_YEAR "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
#define DAY       "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
#define DATE      "(" YEAR "-" DAY "|" LEAP_YEAR "-02-29)"
#define HOUR      "([01][0-9]|2[0-3])"
#define TIME      HOUR ":[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]" HOUR ":[0-5][0-9])"
/* ISO 8601, as RFC 3339 has it in its appendix A. */
#define CLOCK "T([0-9]{1,6}H([0-9]{1,6}M([0-9]{1,6}S)?)?|[0-9]{1,6}M([0-9]{1,6}S)?|[0-9]{1,6}S)"
#define DAYS  "([0-9]{1,6}Y([0-9]{1,6}M([0-9]{1,6}D)?)?|[0-9]{1,6}M([0-9]{1,6}D)?|[0-9]{1,6}D)"
/* RFC 1123 and RFC 5321, in ASCII without quotes. */
#define LABEL       "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define SHORT_LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,38}[A-Za-z0-9])?"
#define MAILBOX     "[A-Za-z0-9_+-]{1,24}(\\.[A-Za-z0-9_+-]{1,12}){0,3}@(" SHORT_LABEL "\\.){1,3}[A-Za-z]{2,10}"
/* RFC 3986, with a host. */
#define IN_URI      "[A-Za-z0-9._~!$&'()*+,;=:@/?-]*"
#define BEHIND_HOST "([/?]" IN_URI ")?(#" IN_URI ")?"
#define URI         "[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[1-9][0-9]{0,3})?" BEHIND_HOST
#define BYTE        "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define H           "[0-9a-fA-F]"
#define G           H "{1,4}"
#define IPV6                                                                                                                               \
  "((" G ":){7}" G "|(" G ":){1,7}:|(" G ":){1,6}:" G "|(" G ":){1,5}(:" G "){2}|(" G ":){1,4}(:" G "){3}|(" G ":){1,3}(:" G "){4}|(" G    \
  ":){1,2}(:" G "){5}|" G ":(:" G "){6}|::|:(:" G "){1,7})"
#define UUID(version, variant) H "{8}-" H "{4}-" version H "{3}-" variant H "{3}-" H "{12}"
#define OF_RFC(version)        UUID(version, "[89abAB]")

static const struct {
  const char *name, *pattern;
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"duration", "^P([0-9]{1,6}W|" DAYS "(" CLOCK ")?|" CLOCK ")$"},
    {"email", "^" MAILBOX "$"},
    {"idn-email", "^" MAILBOX "$"},
    {"hostname", "^" LABEL "(\\." LABEL "){0,2}$"},
    {"ipv4", "^(" BYTE "\\.){3}" BYTE "$"},
    {"ipv6", "^" IPV6 "$"},
    {"uuid", "^" UUID("" H, "" H) "$"},
    {"uuid1", "^" OF_RFC("1") "$"},
    {"uuid3", "^" OF_RFC("3") "$"},
    {"uuid4", "^" OF_RFC("4") "$"},
    {"uuid5", "^" OF_RFC("5") "$"},
    {"uuid6", "^" OF_RFC("6") "$"},
    {"uuid7", "^" OF_RFC("7") "$"},
    {"uuid8", "^" OF_RFC("8") "$"},
    {"uri", "^" URI "$"},
    {"uri-reference", "^(" URI "|/([A-Za-z0-9._~-]+/?)*)$"},
    {"json-pointer", "^(/([ !\"#$%&'()*+,.0-9:;<=>?@A-Z_a-z{|}-]|~[01])*)*$"},
    {"byte", "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"},
    {"base64", "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"},
    {"base64url", "^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-][AQgw]==|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]=)?$"},
    {"binary", ""},
    {"password", ""},
    {"path", ""},
    {"file-path", ""},
    {"directory-path", ""},
};

const char json_formats_known[] =
    "has a format that is not known here: date, time, date-time, duration, email, hostname, ipv4, ipv6, uuid, uri, json-pointer, byte and "
    "others are";

const char *json_format_pattern(const char *name) {
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
    if (!strcmp(formats[i].name, name)) return formats[i].pattern;
  return NULL;
}

bool json_format_names_its_pattern(const char *name) {
  static const char *const names[] = {"cuid",   "cuid2",  "ulid", "nanoid", "xid",  "ksuid",     "jwt",
                                      "cidrv4", "cidrv6", "e164", "emoji",  "guid", "lowercase", "uppercase"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(names[i], name)) return true;
  return false;
}
