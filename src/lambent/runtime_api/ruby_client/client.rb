# frozen_string_literal: true

# The Ruby runtime inside the sandbox: loads the handler, answers events, tells of errors in AWS's words.
#
# Seen inside as /var/runtime/lambent/client.rb, and run in one of two ways:
#
#   ruby client.rb           the function's environment is this process's environment
#   ruby client.rb --warm    started ahead, knowing nothing: waits on descriptor 4 for {"env": {...}, "handler": "..."}, then goes on
#
# Runs on MRI 3.1 and later and needs nothing but its standard library. What AWS's own runtime has loaded when a handler is required is
# loaded here too (json, logger, stringio, net/http), since functions lean on it without knowing.
#
# How errors end: what a handler raises is answered, and the process goes on, if it is a StandardError other than NameError; after anything
# else (NameError with NoMethodError, SystemExit, NoMemoryError, ...) the error is answered and the process ends with status 255, as on AWS.
# An error while the handler's file is loaded is an init error, status 252.

require 'json'
require 'net/http'
require 'stringio'
require_relative 'channel'
require_relative 'context'
require_relative 'failure'
require_relative 'logging'

# `file.method`, or `file.Module::Class.method`; top-level methods are called on an instance of this class.
class LambdaHandler
  attr_reader :handler_file_name, :handler_method_name

  def initialize(env_handler:)
    parts = env_handler.split('.')
    unless [2, 3].include?(parts.size)
      raise ArgumentError, "Invalid handler #{parts}, must be of form FILENAME.METHOD or FILENAME.CLASS.METHOD where FILENAME corresponds " \
                           'with an existing Ruby source file FILENAME.rb, CLASS is an optional module/class namespace and METHOD is a ' \
                           'callable method. If using CLASS, METHOD must be a class-level method.'
    end
    @handler_file_name = parts.first
    @handler_method_name = parts.last
    @handler_class = parts[1] if parts.size == 3
  end

  # The answer's text or IO, and its content type.
  def call_handler(request:, context:)
    target = @handler_class ? Kernel.const_get(@handler_class) : self
    answer, content_type = AwsLambda::Marshaller.marshall_response(target.__send__(@handler_method_name, event: request, context: context))
    answer = answer.read if answer.is_a?(StringIO) || answer.is_a?(IO)
    [answer.to_s, content_type || 'application/json']
  end
end

module LambentRuntime
  CHANNEL = 3
  ASSIGNMENT = 4
  STATUS_CRITICAL = 255
  STATUS_INIT = 252
  ANEW = %w[RUBYOPT LD_PRELOAD].freeze # what only a new process can take up
  LIBRARIES = 'LD_LIBRARY_PATH'

  class << self
    def main(arguments)
      warm = arguments.first == '--warm'
      handler = warm ? assignment : ENV.fetch('_HANDLER', '')
      settle(warm)
      run(Channel.new(CHANNEL), handler)
    end

    private

    # Wait to be told whose process this is. What only a new interpreter can take up makes a new interpreter of it.
    def assignment
      text = IO.for_fd(ASSIGNMENT, 'rb').tap { |io| io.close_on_exec = true }.read
      exit!(0) if text.empty?
      told = JSON.parse(text)
      anew = ANEW.any? { |name| told['env'].key?(name) } || (ENV.key?(LIBRARIES) && ENV[LIBRARIES] != told['env'][LIBRARIES])
      ENV.replace(told['env'])
      exec(RbConfig.ruby, File.join(__dir__, 'client.rb'), CHANNEL => CHANNEL) if anew
      told['handler']
    end

    def settle(warm)
      Encoding.default_external = Encoding::UTF_8
      root = ENV['LAMBDA_TASK_ROOT'] || '/var/task'
      Dir.chdir(root)
      if warm # RUBYLIB and GEM_PATH are read when an interpreter starts
        $LOAD_PATH.unshift(*ENV['RUBYLIB'].to_s.split(':').reject { |folder| folder.empty? || $LOAD_PATH.include?(folder) })
        Gem.paths = ENV.to_h
      end
      $LOAD_PATH.unshift(root) unless $LOAD_PATH.include?(root)
      LambentRuntime.settle_logging
      ARGV.clear
      $PROGRAM_NAME = '/var/runtime/bootstrap.rb'
    end

    def run(channel, handler_name)
      begin
        handler = LambdaHandler.new(env_handler: handler_name)
        require handler.handler_file_name
      rescue Exception => e # rubocop:disable Lint/RescueException
        failure = Failure.new(e, 'Init')
        failure.log("Init error when loading handler #{handler_name}")
        channel.init_error(JSON.generate(failure.payload), failure.telemetry_type)
        exit(STATUS_INIT)
      end
      loop { invoke(channel, handler, wait(channel)) }
    end

    def wait(channel)
      event = channel.next_invoke
      LambentRuntime.request_id = event.request_id
      $_global_aws_request_id = event.request_id # the name that AWS's runtime gives it
      event.trace.empty? ? ENV.delete('_X_AMZN_TRACE_ID') : ENV['_X_AMZN_TRACE_ID'] = event.trace
      event
    rescue SignalException
      exit(0)
    end

    def invoke(channel, handler, event)
      raw = RawRequest.new(event)
      body, content_type = handler.call_handler(request: AwsLambda::Marshaller.marshall_request(raw), context: LambdaContext.new(raw))
      channel.respond(event, body, content_type)
    rescue NameError => e
      critical(channel, event, e)
    rescue StandardError => e
      report(channel, event, e, 'Error raised from handler method')
    rescue Exception => e # rubocop:disable Lint/RescueException
      critical(channel, event, e)
    end

    def critical(channel, event, error)
      report(channel, event, error, 'Critical exception from handler')
      channel.flush
      exit(STATUS_CRITICAL)
    end

    def report(channel, event, error, message)
      failure = Failure.new(error, 'Function')
      failure.log(message)
      channel.fail(event, JSON.generate(failure.payload), failure.telemetry_type, failure.xray_cause)
    end
  end
end

LambentRuntime.main(ARGV)
