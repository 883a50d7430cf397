# frozen_string_literal: true

# An exception as AWS tells of it: the payload, the error type that goes into telemetry, the X-Ray cause (contract 02 §2.1, 03 §2).

module LambentRuntime
  class Failure
    FRAMES = 100
    CAUSE_FRAMES = 15
    TOLD = %w[ArgumentError NoMethodError Exception StandardError NameError LoadError SystemExit SystemStackError].freeze
    OWN = "#{__dir__}/"

    # `phase` is "Function", "Init" or "Runtime".
    def initialize(error, phase)
      @type = "#{phase}<#{error.class}>"
      @told = TOLD.include?(error.class.to_s)
      @message = LambentRuntime.utf8(error.message)
      # What lies below our first frame is how the runtime got to the handler, which is nobody's business.
      @locations = (error.backtrace_locations || []).first(FRAMES).take_while { |location| !location.path.to_s.start_with?(OWN) }
    end

    def payload
      { errorMessage: @message, errorType: @type, stackTrace: @locations.map { |location| LambentRuntime.utf8(location.to_s) } }
    end

    # Names of the function's own exception classes are not told to telemetry.
    def telemetry_type
      @told ? @type : 'Function<UserException>'
    end

    def xray_cause
      stack = @locations.first(CAUSE_FRAMES).map { |each| { path: each.path, line: each.lineno, label: each.label } }
      JSON.generate(working_directory: Dir.pwd, paths: Gem.path, exceptions: [{ message: @message, type: @type, stack: stack }])
    end

    # On the log, as the managed runtime does it.
    def log(message)
      puts message
      puts JSON.pretty_generate(payload)
    end
  end
end
