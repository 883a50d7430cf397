# frozen_string_literal: true

# What AWS's runtime makes of `Logger` and `puts` (contract 03 §8).
#
# Loggers that write to stdout, stderr or nowhere get AWS's line or JSON format, and the level of the function's configuration; one that was
# given a formatter, a level or a device of its own keeps it. Where the platform gives a descriptor for framed records
# (`_LAMBDA_TELEMETRY_LOG_FD`), a record of several lines stays one record.

require 'logger'

module LambentRuntime
  class << self
    attr_accessor :request_id, :log_sink
  end

  # `I, [2026-11-21T09:00:00.000000 #8]  INFO <request id> -- name: message`
  class TextFormatter < Logger::Formatter
    def call(severity, time, progname, message)
      head = format('%s, [%s #%d] %5s', severity[0], time.strftime(datetime_format || '%Y-%m-%dT%H:%M:%S.%6N'), Process.pid, severity)
      LambentRuntime.utf8("#{head} #{LambentRuntime.request_id} -- #{progname}: #{msg2str(message)}\n")
    end
  end

  # One JSON object a line, with AWS's members.
  class JsonFormatter < Logger::Formatter
    PLACE = /\A(?<file>.+):(?<line>\d+):in [`'](?<name>.+)'\z/

    def call(severity, time, progname, message)
      record = {
        timestamp: time.getutc.strftime('%Y-%m-%dT%H:%M:%S.%6NZ'),
        level: severity,
        message: LambentRuntime.utf8(message.is_a?(Exception) ? message.message : msg2str(message)),
        requestId: LambentRuntime.request_id,
        logger: progname.nil? || progname.to_s.empty? ? nil : LambentRuntime.utf8(progname)
      }
      record.merge!(exception(message)) if message.is_a?(Exception)
      "#{JSON.generate(record.compact)}\n"
    end

    private

    def exception(error)
      trace = Array(error.backtrace).map { |line| LambentRuntime.utf8(line) }
      place = trace.first && (PLACE.match(trace.first) || trace.first)
      {
        errorType: error.class.to_s,
        errorMessage: LambentRuntime.utf8(error.message),
        stackTrace: trace,
        location: place.is_a?(MatchData) ? "#{place[:file]}:#{place[:name]}:#{place[:line]}" : place
      }
    end
  end

  # A log device that frames every record: type, length, microseconds since the epoch, text.
  class FrameSink
    TEXT = 0xa55a0003

    def initialize(descriptor)
      @file = IO.for_fd(descriptor, 'wb')
      @file.close_on_exec = true
      @file.sync = true
    end

    def write(text)
      data = text.to_s.b
      @file.write([TEXT, data.bytesize, Process.clock_gettime(Process::CLOCK_REALTIME, :microsecond)].pack('NNQ>') << data)
      data.bytesize
    end

    def close; end

    def reopen(*) = self
  end

  module LoggerPatch
    LEVELS = { 'TRACE' => Logger::DEBUG, 'DEBUG' => Logger::DEBUG, 'INFO' => Logger::INFO, 'WARN' => Logger::WARN,
               'ERROR' => Logger::ERROR, 'FATAL' => Logger::FATAL }.freeze

    def initialize(logdev = nil, *shift, level: nil, formatter: nil, **options)
      if logdev.nil? || logdev.equal?($stdout) || logdev.equal?($stderr) || logdev.equal?(STDOUT) || logdev.equal?(STDERR)
        json = ENV['AWS_LAMBDA_LOG_FORMAT'].to_s.casecmp?('json')
        formatter ||= json ? JsonFormatter.new : TextFormatter.new
        level ||= LEVELS[ENV['AWS_LAMBDA_LOG_LEVEL'].to_s.upcase]
        logdev = LambentRuntime.log_sink || logdev || $stdout
      end
      super(logdev, *shift, level: level || Logger::DEBUG, formatter: formatter, **options)
    end
  end

  # `puts` where records are framed: all that one call prints is one record.
  module FramedPuts
    private

    def puts(*things)
      LambentRuntime.log_sink.write(things.empty? ? "\n" : things.flatten.map { |each| LambentRuntime.utf8(each) }.join("\n"))
      nil
    end
  end

  def self.utf8(text)
    text.to_s.encode('UTF-8', invalid: :replace, undef: :replace).scrub
  end

  # Once, when the environment is known.
  def self.settle_logging
    $stdout.sync = true
    $stderr.sync = true
    descriptor = ENV.delete('_LAMBDA_TELEMETRY_LOG_FD')
    if descriptor
      self.log_sink = FrameSink.new(Integer(descriptor, 10))
      Kernel.prepend(FramedPuts)
    end
    Logger.prepend(LoggerPatch)
  end
end
