/* A name service to break: an NSS module for glibc that asks a server on loopback, as those of sssd and LDAP do.
 *
 * Preloaded, it also gives the process an nsswitch.conf of its own, so that nothing of the machine's is touched.
 * Compiled by support.name_service, with PORT, NSSWITCH (that file) and ORDER (what stands in it).
 *
 * One question a connection: "uid N", "user NAME", "gid N" or "groups NAME" and a newline. The answer is "none", or
 * "drill" and what was asked for, with a newline behind. It waits for it as long as it takes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
enum { LONGEST = 4096 };

static enum nss_status ask(char *line, const char *kind, const char *whom, int *failed)
{
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    size_t length = 0;
    ssize_t got = -1;
    int number = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(line, LONGEST, "%s %s\n", kind, whom);
    if (number >= 0 && connect(number, (struct sockaddr *)&place, sizeof place) == 0
        && send(number, line, strlen(line), MSG_NOSIGNAL) > 0)
        while ((got = recv(number, line + length, LONGEST - 1 - length, 0)) > 0)
            length += (size_t)got;
    *failed = got < 0 ? errno : EPROTO;
    if (number >= 0)
        close(number);
    line[length] = 0;
    if (got == 0 && strcmp(line, "none\n") == 0)
        return NSS_STATUS_NOTFOUND;
    if (got != 0 || strncmp(line, "drill ", 6) != 0 || line[length - 1] != '\n')
        return NSS_STATUS_UNAVAIL;
    line[length - 1] = 0;
    memmove(line, line + 6, length - 6);
    return NSS_STATUS_SUCCESS;
}

static enum nss_status find_account(const char *kind, const char *whom, struct passwd *account, char *room,
                                    size_t size, int *failed)
{
    char line[LONGEST];
    enum nss_status status = ask(line, kind, whom, failed);
    if (status != NSS_STATUS_SUCCESS)
        return status;
    if (strlen(line) >= size) {
        *failed = ERANGE;
        return NSS_STATUS_TRYAGAIN;
    }
    char *rest = strcpy(room, line);
    account->pw_name = strsep(&rest, " ");
    account->pw_uid = (uid_t)strtoul(rest, &rest, 10);
    account->pw_gid = (gid_t)strtoul(rest, NULL, 10);
    account->pw_passwd = account->pw_gecos = account->pw_dir = account->pw_shell = "";
    return status;
}

PUBLIC enum nss_status _nss_drill_getpwuid_r(uid_t uid, struct passwd *account, char *room, size_t size, int *failed)
{
    char number[16];
    snprintf(number, sizeof number, "%u", uid);
    return find_account("uid", number, account, room, size, failed);
}

PUBLIC enum nss_status _nss_drill_getpwnam_r(const char *name, struct passwd *account, char *room, size_t size,
                                             int *failed)
{
    return find_account("user", name, account, room, size, failed);
}

PUBLIC enum nss_status _nss_drill_getgrgid_r(gid_t gid, struct group *group, char *room, size_t size, int *failed)
{
    static char *nobody[] = {NULL};
    char line[LONGEST], number[16];
    snprintf(number, sizeof number, "%u", gid);
    enum nss_status status = ask(line, "gid", number, failed);
    if (status != NSS_STATUS_SUCCESS)
        return status;
    if (strlen(line) >= size) {
        *failed = ERANGE;
        return NSS_STATUS_TRYAGAIN;
    }
    *group = (struct group){.gr_name = strcpy(room, line), .gr_passwd = "", .gr_gid = gid, .gr_mem = nobody};
    return status;
}

PUBLIC enum nss_status _nss_drill_initgroups_dyn(const char *name, gid_t own, long *start, long *size, gid_t **groups,
                                                 long limit, int *failed)
{
    char line[LONGEST], *rest = line, *word;
    enum nss_status status = ask(line, "groups", name, failed);
    (void)limit;
    while (status == NSS_STATUS_SUCCESS && (word = strsep(&rest, " ")) != NULL) {
        gid_t number = (gid_t)strtoul(word, NULL, 10);
        if (number == own)
            continue;
        if (*start == *size)
            *groups = realloc(*groups, sizeof **groups * (size_t)(*size *= 2));
        (*groups)[(*start)++] = number;
    }
    return status;
}

__attribute__((constructor)) static void configure(void)
{
    extern int __nss_configure_lookup(const char *, const char *);
    __nss_configure_lookup("passwd", ORDER);
    __nss_configure_lookup("group", ORDER);
}

PUBLIC int open64(const char *path, int flags, ...)
{
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    __builtin_va_list more;
    __builtin_va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? __builtin_va_arg(more, mode_t) : 0;
    __builtin_va_end(more);
    return real(strcmp(path, "/etc/nsswitch.conf") ? path : NSSWITCH, flags, mode);
}

PUBLIC int open(const char *path, int flags, ...) __attribute__((alias("open64")));
