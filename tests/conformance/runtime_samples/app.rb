# The sample of the Ruby family.
require 'json'

$count = 0

raise 'closed today' if ENV['FAIL_INIT']

def context_of(context)
  client = context.client_context
  { id: context.aws_request_id, arn: context.invoked_function_arn, left: context.get_remaining_time_in_millis,
    name: context.function_name, version: context.function_version, memory: context.memory_limit_in_mb.to_i,
    group: context.log_group_name, stream: context.log_stream_name, client: client && client['custom'],
    trace: ENV['_X_AMZN_TRACE_ID'] }
end

def handler(event:, context:)
  $count += 1
  case event['do']
  when 'count' then $count
  when 'fail' then raise 'oh dear'
  when 'exit' then exit!(event['code'])
  when 'kill' then Process.kill('KILL', Process.pid)
  when 'sleep' then sleep
  when 'memory' then (1..).map { 'x' * 10_000_000 }
  when 'log'
    %w[one two three].each { |word| puts "line #{word}" }
    event
  when 'context' then context_of(context)
  when 'env' then JSON.parse(ENV['SHOWN']).to_h { |name| [name, ENV[name]] }
  when 'layer'
    require 'layered'
    [File.read('/opt/data.txt'), LAYERED]
  when 'keep'
    File.write('/tmp/kept', 'kept')
    event
  when 'kept' then File.exist?('/tmp/kept')
  else event
  end
end
