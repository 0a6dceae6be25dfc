// Calls each operation of a generated client (openapi-generator, java, native) with the examples of the description.
// Arguments: the API's address, a file of calls as tests/clients/calls.py writes it. Prints a JSON object a call.

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.net.http.HttpClient;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.ApiResponse;

public class Call {
  public static void main(String[] arguments) throws Exception {
    ApiClient client = new ApiClient();
    client.setHttpClientBuilder(HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1));
    client.updateBaseUri(arguments[0]);
    ObjectMapper mapper = client.getObjectMapper();
    // Of a body's forms it is the one that knows all its fields.
    ObjectMapper strict = mapper.copy().enable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES);
    for (JsonNode call : mapper.readTree(new File(arguments[1]))) {
      String id = call.get("operation").asText(), name = camel(id, false);
      List<JsonNode> given = new ArrayList<>();
      call.get("parameters").forEach(each -> given.add(each.get("value")));
      if (call.has("body")) given.add(call.get("body"));
      Class<?> kind = Class.forName("org.openapitools.client.api." + camel(call.get("tag").asText(), true) + "Api");
      Method method = Arrays.stream(kind.getMethods())
          .filter(each -> each.getName().equals(name + "WithHttpInfo") && each.getParameterCount() == given.size())
          .findFirst().orElseThrow(() -> new NoSuchMethodException(kind + " " + name + " of " + given.size()));
      Object[] values = new Object[given.size()];
      for (int i = 0; i < values.length; i++) {
        var type = mapper.getTypeFactory().constructType(method.getGenericParameterTypes()[i]);
        values[i] = strict.readValue(strict.treeAsTokens(given.get(i)), type);
      }
      int status;
      String error = "";
      try {
        ApiResponse<?> answer = (ApiResponse<?>) method.invoke(kind.getConstructor(ApiClient.class).newInstance(client), values);
        status = answer.getStatusCode();
        if (answer.getData() == null) error = "nothing was read of the answer";
      } catch (InvocationTargetException wrapped) {
        if (!(wrapped.getCause() instanceof ApiException)) throw wrapped;
        ApiException refused = (ApiException) wrapped.getCause();
        status = refused.getCode();
        error = String.valueOf(refused.getMessage());
      }
      System.out.println(mapper.writeValueAsString(Map.of("operation", id, "status", status, "error", error)));
    }
  }

  private static String camel(String words, boolean first) {
    StringBuilder made = new StringBuilder();
    for (String word : words.split("[_ ]")) {
      made.append(made.length() == 0 && !first ? word : Character.toUpperCase(word.charAt(0)) + word.substring(1));
    }
    return made.toString();
  }
}
