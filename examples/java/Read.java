// Lists a store's entries and fetches each, beside whoever writes to it; by way of JNA, which needs no native code of
// ours (https://github.com/java-native-access/jna, Debian's libjna-java).
//
//   java -cp /usr/share/java/jna.jar -Djna.library.path=PREFIX/lib Read.java STORE

import com.sun.jna.Library;
import com.sun.jna.Memory;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.Structure;
import com.sun.jna.Structure.FieldOrder;
import com.sun.jna.ptr.LongByReference;
import com.sun.jna.ptr.PointerByReference;
import java.nio.charset.StandardCharsets;

public class Read {
  // The structs of finchkv.h as far as they are used here: struct_size says how much of one there is. size_t as long.

  @FieldOrder({"data", "size"})
  public static class Str extends Structure {
    public Pointer data;
    public long size;
  }

  @FieldOrder({"structSize", "url", "mode", "create", "waitMs", "publisher"})
  public static class StoreOptions extends Structure {
    public long structSize;
    public Str url;
    public int mode, create, waitMs, publisher; // mode 0: to read
  }

  @FieldOrder({"structSize", "id", "label", "reader", "policy", "docTokens", "promptTokens", "keep", "chunk", "layers",
      "kvHeads", "headDim", "originRows", "maxKept", "storageDtype"})
  public static class EntryInfo extends Structure {
    public long structSize;
    public byte[] id = new byte[32];
    public Str label, reader, policy;
    public long docTokens, promptTokens, keep, chunk;
    public int layers, kvHeads, headDim, originRows, maxKept, storageDtype;
  }

  // Opaque objects are Pointers; each is freed by its own function.
  public interface Finchkv extends Library {
    Finchkv LIBRARY = Native.load("finchkv", Finchkv.class);

    String fkv_error_message(Pointer error);
    void fkv_error_free(Pointer error);
    int fkv_store_open(StoreOptions options, PointerByReference store, PointerByReference error);
    void fkv_store_close(Pointer store);
    int fkv_store_list(Pointer store, Pointer after, int limit, PointerByReference listing, PointerByReference error);
    long fkv_listing_size(Pointer listing);
    int fkv_listing_get_info(Pointer listing, long index, EntryInfo info, PointerByReference error);
    void fkv_listing_free(Pointer listing);
    int fkv_store_fetch(Pointer store, byte[] id, PointerByReference fetch, PointerByReference error);
    int fkv_fetch_finish(Pointer fetch, PointerByReference set, PointerByReference error);
    void fkv_fetch_free(Pointer fetch);
    int fkv_kvset_origins(Pointer set, int layer, PointerByReference origins, LongByReference count,
        PointerByReference error);
    void fkv_kvset_free(Pointer set);
  }

  private static final Finchkv FKV = Finchkv.LIBRARY;

  private interface Call {
    int make(PointerByReference error);
  }

  private static void call(Call function) {
    PointerByReference error = new PointerByReference();
    int code = function.make(error);
    if (code == 0) {
      return;
    }
    if (error.getValue() == null) {
      throw new IllegalStateException("error " + code);
    }
    String message = FKV.fkv_error_message(error.getValue());
    FKV.fkv_error_free(error.getValue());
    throw new IllegalStateException(message);
  }

  private static Pointer openForReading(String directory) {
    byte[] bytes = directory.getBytes(StandardCharsets.UTF_8);
    Memory url = new Memory(bytes.length);
    url.write(0, bytes, 0, bytes.length);
    StoreOptions options = new StoreOptions();
    options.structSize = options.size();
    options.url.data = url;
    options.url.size = bytes.length;
    PointerByReference store = new PointerByReference();
    call(error -> FKV.fkv_store_open(options, store, error));
    return store.getValue();
  }

  private static void show(Pointer store, EntryInfo info) {
    PointerByReference fetch = new PointerByReference();
    call(error -> FKV.fkv_store_fetch(store, info.id, fetch, error));
    PointerByReference set = new PointerByReference();
    try {
      call(error -> FKV.fkv_fetch_finish(fetch.getValue(), set, error));
      PointerByReference origins = new PointerByReference();
      LongByReference count = new LongByReference();
      call(error -> FKV.fkv_kvset_origins(set.getValue(), 0, origins, count, error));
      StringBuilder id = new StringBuilder();
      for (byte b : info.id) {
        id.append(String.format("%02x", b));
      }
      System.out.printf("%s keeps %d of %d tokens; layer 0 from %d on%n", id, info.maxKept, info.docTokens,
          origins.getValue().getInt(0)); // valid as long as the set
    } finally {
      FKV.fkv_kvset_free(set.getValue());
      FKV.fkv_fetch_free(fetch.getValue());
    }
  }

  public static void main(String[] arguments) {
    if (arguments.length != 1) {
      System.err.println("usage: Read STORE");
      System.exit(2);
    }
    try {
      Pointer store = openForReading(arguments[0]);
      PointerByReference listing = new PointerByReference();
      call(error -> FKV.fkv_store_list(store, null, 1000, listing, error));
      for (long i = 0; i < FKV.fkv_listing_size(listing.getValue()); i++) {
        EntryInfo info = new EntryInfo();
        info.structSize = info.size();
        long index = i;
        call(error -> FKV.fkv_listing_get_info(listing.getValue(), index, info, error));
        show(store, info);
      }
      FKV.fkv_listing_free(listing.getValue());
      FKV.fkv_store_close(store);
    } catch (IllegalStateException e) {
      System.err.println(e.getMessage());
      System.exit(1);
    }
  }
}
