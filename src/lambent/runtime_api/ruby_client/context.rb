# frozen_string_literal: true

# What the handler is given: the context object, and the marshaller that functions may replace. Names and shapes are AWS's (contract 03 §7).

# One invocation as the function sees it.
class LambdaContext
  W3C_FIELDS = %w[traceparent tracestate baggage].freeze

  attr_reader :aws_request_id, :invoked_function_arn, :log_group_name, :log_stream_name, :function_name, :memory_limit_in_mb,
              :function_version, :identity, :client_context, :deadline_ms, :tenant_id

  def initialize(headers)
    @aws_request_id = headers['Lambda-Runtime-Aws-Request-Id']
    @invoked_function_arn = headers['Lambda-Runtime-Invoked-Function-Arn']
    @tenant_id = headers['Lambda-Runtime-Aws-Tenant-Id']
    @deadline_ms = headers['Lambda-Runtime-Deadline-Ms'].to_i
    @log_group_name = ENV['AWS_LAMBDA_LOG_GROUP_NAME']
    @log_stream_name = ENV['AWS_LAMBDA_LOG_STREAM_NAME']
    @function_name = ENV['AWS_LAMBDA_FUNCTION_NAME']
    @function_version = ENV['AWS_LAMBDA_FUNCTION_VERSION']
    @memory_limit_in_mb = ENV['AWS_LAMBDA_FUNCTION_MEMORY_SIZE']
    @identity = parse(headers['Lambda-Runtime-Cognito-Identity'])
    @client_context = parse(headers['Lambda-Runtime-Client-Context'])
    carried = @client_context.is_a?(Hash) ? @client_context.delete('w3c') : nil
    @w3c = carried.is_a?(Hash) ? carried.select { |name, value| W3C_FIELDS.include?(name) && value.is_a?(String) } : {}
  end

  def get_remaining_time_in_millis # rubocop:disable Naming/AccessorMethodName
    [@deadline_ms - Process.clock_gettime(Process::CLOCK_REALTIME, :millisecond), 0].max
  end

  # The W3C trace context that the caller put into the client context.
  def w3c
    @w3c.dup
  end

  private

  def parse(text)
    text && JSON.parse(text)
  end
end

module AwsLambda
  # Event text to Ruby and back. A function may define these two methods anew.
  class Marshaller
    class << self
      # `raw_request` answers to `[]` with header names, and to `body`.
      def marshall_request(raw_request)
        raw_request['Content-Type'] == 'application/json' ? JSON.parse(raw_request.body) : raw_request.body
      end

      # JSON text; or an IO and its content type, for an answer that is not JSON.
      def marshall_response(method_response)
        return [method_response, 'application/unknown'] if method_response.is_a?(StringIO) || method_response.is_a?(IO)

        method_response.to_json
      end
    end
  end
end

module LambentRuntime
  # An INVOKE frame in the shape of the Runtime API's answer, for `AwsLambda::Marshaller` and `LambdaContext`.
  class RawRequest
    attr_reader :body

    def initialize(invoke)
      @body = invoke.body
      @headers = {
        'Content-Type' => 'application/json',
        'Lambda-Runtime-Aws-Request-Id' => invoke.request_id,
        'Lambda-Runtime-Deadline-Ms' => invoke.deadline_ms,
        'Lambda-Runtime-Invoked-Function-Arn' => invoke.arn,
        'Lambda-Runtime-Trace-Id' => filled(invoke.trace),
        'Lambda-Runtime-Aws-Tenant-Id' => filled(invoke.tenant),
        'Lambda-Runtime-Cognito-Identity' => filled(invoke.cognito),
        'Lambda-Runtime-Client-Context' => filled(invoke.client_context)
      }
    end

    def [](name)
      @headers[name]
    end

    private

    def filled(text)
      text unless text.nil? || text.empty?
    end
  end
end
