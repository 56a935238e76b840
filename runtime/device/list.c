/* The public list: all platforms and devices, best first, each piece of hardware once; broken ones are skipped with a
 * reason. */
#include "device/device.h"

#include <string.h>

enum { MOST = 256 }; /* platforms, and devices of one platform; more is a driver's error */

static clattn_status grow(void **items, int count, size_t size) {
    /* Doubling at powers of two; the lists are short. */
    if (count & (count - 1)) return CLATTN_OK;
    void *more = clattn__alloc(count ? (size_t)count * 2 : 1, size);
    if (!more) return CLATTN_OUT_OF_MEMORY;
    if (count) memcpy(more, *items, (size_t)count * size);
    clattn__free(*items);
    *items = more;
    return CLATTN_OK;
}

/* Keeps a reason why something was left out; takes the text. */
static clattn_status skip(clattn_device_list *list, clattn__text *reason) {
    void *items = list->skipped;
    clattn_status status = reason->failed ? CLATTN_OUT_OF_MEMORY : grow(&items, list->skipped_count, sizeof(char *));
    if (status) {
        clattn__text_free(reason);
        return status;
    }
    list->skipped = items;
    list->skipped[list->skipped_count++] = reason->data;
    return CLATTN_OK;
}

static void platform_text(cl_platform_id platform, char *text, size_t capacity) {
    static const char unnamed[] = "(a platform without a name)";
    text[0] = '\0';
    if (clGetPlatformInfo(platform, CL_PLATFORM_NAME, capacity, text, NULL) == CL_SUCCESS && text[0]) return;
    memcpy(text, unnamed, sizeof unnamed);
}

static clattn_status skip_platform(clattn_device_list *list, cl_platform_id platform, cl_int code) {
    char name[256];
    clattn__text reason = {0};
    platform_text(platform, name, sizeof name);
    clattn__text_add(&reason, "platform \"%s\": clGetDeviceIDs gave %s (%d)", name, clattn__cl_error_name(code),
                     (int)code);
    if (strstr(name, "Portable Computing Language"))
        clattn__text_add(
            &reason, "; pocl needs a folder to write to: set POCL_CACHE_DIR to one, or make HOME writable; built for "
                     "GPUs alone, it needs one of those");
    return skip(list, &reason);
}

static clattn_status add_device(clattn_device_list *list, cl_platform_id platform, cl_device_id id) {
    for (int i = 0; i < list->count; i++) {
        if (list->devices[i].id == id) return CLATTN_OK; /* one driver registered twice */
    }
    clattn__device device;
    clattn_status status = clattn__device_query(platform, id, &device);
    if (status == CLATTN_OUT_OF_MEMORY) return status;
    if (status) {
        char name[256];
        clattn__text reason = {0};
        platform_text(platform, name, sizeof name);
        clattn__text_add(&reason, "a device of platform \"%s\": %s", name, clattn_last_error());
        return skip(list, &reason);
    }
    void *items = list->devices;
    status = grow(&items, list->count, sizeof device);
    if (status) {
        clattn__device_clear(&device);
        return status;
    }
    list->devices = items;
    list->devices[list->count++] = device;
    return CLATTN_OK;
}

static clattn_status add_platform(clattn_device_list *list, cl_platform_id platform) {
    cl_device_id ids[MOST];
    cl_uint count = 0;
    cl_int code = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, MOST, ids, &count);
    if (code != CL_SUCCESS || count == 0) return skip_platform(list, platform, code ? code : CL_DEVICE_NOT_FOUND);
    for (cl_uint i = 0; i < count && i < MOST; i++) {
        clattn_status status = add_device(list, platform, ids[i]);
        if (status) return status;
    }
    return CLATTN_OK;
}

static clattn_status add_platforms(clattn_device_list *list) {
    const cl_int no_platform = -1001; /* CL_PLATFORM_NOT_FOUND_KHR, the loader's word for an empty list */
    cl_platform_id platforms[MOST];
    cl_uint count = 0;
    cl_int code = clGetPlatformIDs(MOST, platforms, &count);
    if (code == no_platform) return CLATTN_OK;
    if (code != CL_SUCCESS) return clattn__cl_fail(code, "clGetPlatformIDs", NULL);
    for (cl_uint i = 0; i < count && i < MOST; i++) {
        clattn_status status = add_platform(list, platforms[i]);
        if (status) return status;
    }
    return CLATTN_OK;
}

/* Higher rank first; equal ranks by name, so that the order never depends on the loader's. */
static bool before(const clattn__device *a, const clattn__device *b) {
    if (a->rank != b->rank) return a->rank > b->rank;
    const char *const texts[][2] = {{a->caps.platform, b->caps.platform},
                                    {a->caps.name, b->caps.name},
                                    {a->caps.pci, b->caps.pci},
                                    {a->caps.uuid, b->caps.uuid}};
    for (size_t i = 0; i < CLATTN__COUNT(texts); i++) {
        int order = strcmp(texts[i][0], texts[i][1]);
        if (order) return order < 0;
    }
    return false;
}

void clattn__devices_sort(clattn__device *devices, int count) {
    for (int i = 1; i < count; i++) { /* insertion: stable, and lists are short */
        clattn__device moving = devices[i];
        int to = i;
        for (; to > 0 && before(&moving, &devices[to - 1]); to--) devices[to] = devices[to - 1];
        devices[to] = moving;
    }
}

/* After sorting: of each piece of hardware the best way to it stays. */
static clattn_status drop_duplicates(clattn_device_list *list) {
    int kept = 0;
    clattn_status status = CLATTN_OK;
    for (int i = 0; i < list->count; i++) {
        clattn__device *device = &list->devices[i];
        int twin = 0;
        while (twin < kept && !clattn__device_same(&list->devices[twin].caps, &device->caps)) twin++;
        if (twin == kept || status) {
            list->devices[kept++] = *device;
            continue;
        }
        clattn__text reason = {0};
        const clattn__caps *better = &list->devices[twin].caps;
        clattn__text_add(&reason, "device \"%s\" of platform \"%s\": the same hardware as \"%s\" of platform \"%s\"",
                         device->caps.name, device->caps.platform, better->name, better->platform);
        status = skip(list, &reason);
        clattn__device_clear(device);
    }
    list->count = kept;
    return status;
}

clattn_status clattn_device_list_create(clattn_device_list **out) {
    if (!out) return clattn__fail(CLATTN_INVALID_ARGUMENT, "out is NULL; it must point to where the list goes");
    *out = NULL;
    char *kept = clattn__error_keep(); /* a skipped device is no failure of this call */
    clattn_device_list *list = clattn__alloc(1, sizeof *list);
    clattn_status status = CLATTN_OUT_OF_MEMORY;
    if (!list) goto fail;
    /* pocl tells a thread that asks while another one's question makes it look for devices that it has none. */
    clattn__mutex_lock(clattn__process_lock());
    status = add_platforms(list);
    clattn__mutex_unlock(clattn__process_lock());
    if (status) goto fail;
    clattn__devices_sort(list->devices, list->count);
    if ((status = drop_duplicates(list))) goto fail;
    clattn__error_restore(kept);
    *out = list;
    return CLATTN_OK;
fail:
    clattn__free(kept);
    clattn_device_list_destroy(&list);
    return status;
}

void clattn_device_list_destroy(clattn_device_list **list) {
    if (!list || !*list) return;
    for (int i = 0; i < (*list)->count; i++) clattn__device_clear(&(*list)->devices[i]);
    for (int i = 0; i < (*list)->skipped_count; i++) clattn__free((*list)->skipped[i]);
    clattn__free((*list)->devices);
    clattn__free((*list)->skipped);
    clattn__free(*list);
    *list = NULL;
}

int clattn_device_list_count(const clattn_device_list *list) { return list ? list->count : 0; }

clattn_status clattn_device_list_get(const clattn_device_list *list, int index, clattn_device_info *info) {
    if (!list || !info)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL; list and info are needed", list ? "info" : "list");
    if (index < 0 || index >= list->count)
        return clattn__fail(CLATTN_INVALID_ARGUMENT,
                            "index is %d; it must be at least 0 and below the number of devices, %d", index,
                            list->count);
    clattn__device_info(&list->devices[index], index, info);
    return CLATTN_OK;
}

const char *clattn_device_list_skipped(const clattn_device_list *list, int i) {
    return list && i >= 0 && i < list->skipped_count ? list->skipped[i] : NULL;
}

clattn_status clattn_device_list_select(const clattn_device_list *list, const char *selector, int *index) {
    if (!list || !index)
        return clattn__fail(CLATTN_INVALID_ARGUMENT, "%s is NULL; list and index are needed", list ? "index" : "list");
    clattn_status status = clattn__device_select(list->devices, list->count, selector, index);
    if (status && list->skipped_count > 0) {
        clattn__fail_note("\nleft out:");
        for (int i = 0; i < list->skipped_count; i++) clattn__fail_note("\n  %s", list->skipped[i]);
    }
    return status;
}
