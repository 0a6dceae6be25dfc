{{/* Names, labels, and what stands in every pod. */}}

{{- define "driftline.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters, so that a suffix and a StatefulSet's own fit into 63. */}}
{{- define "driftline.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "driftline.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "driftline.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of (list . "learner"). */}}
{{- define "driftline.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "driftline.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "driftline.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: driftline
{{ include "driftline.selector" . }}
{{- end -}}

{{- define "driftline.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "driftline.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "driftline.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- if .Values.image.digest -}}
{{- printf "%s:%s@%s" .Values.image.repository $tag .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{- define "driftline.log" -}}
{{- if .Values.trial.kafka.enabled -}}
kafka://{{ include "driftline.fullname" . }}-kafka:9092
{{- else -}}
kafka://{{ .Values.kafka.brokers }}
{{- end -}}
{{- end -}}

{{/* An option's value as a variable has it. A number is written out: 2000000, not 2e+06. */}}
{{- define "driftline.value" -}}
{{- if kindIs "string" . -}}{{ . }}
{{- else if kindIs "slice" . -}}{{ join "," . }}
{{- else -}}{{ toJson . }}
{{- end -}}
{{- end -}}

{{- define "driftline.options" -}}
{{- range $name, $value := . }}
- name: DRIFTLINE_{{ upper $name }}
  value: {{ include "driftline.value" $value | quote }}
{{- end }}
{{- end -}}

{{- define "driftline.kafkaSecret" -}}
{{- if .Values.kafka.config.existingSecret -}}{{ .Values.kafka.config.existingSecret }}
{{- else if .Values.kafka.config.value -}}{{ include "driftline.fullname" . }}-kafka-config
{{- end -}}
{{- end -}}

{{- define "driftline.keysSecret" -}}
{{- if .Values.api.keys.existingSecret -}}{{ .Values.api.keys.existingSecret }}
{{- else if .Values.api.keys.value -}}{{ include "driftline.fullname" . }}-api-keys
{{- end -}}
{{- end -}}

{{- define "driftline.storeSecret" -}}
{{- if .Values.checkpoints.credentials.existingSecret -}}{{ .Values.checkpoints.credentials.existingSecret }}
{{- else if .Values.checkpoints.credentials.values -}}{{ include "driftline.fullname" . }}-store
{{- end -}}
{{- end -}}

{{- define "driftline.storeClaim" -}}
{{- if .Values.checkpoints.volume.existingClaim -}}{{ .Values.checkpoints.volume.existingClaim }}
{{- else if .Values.checkpoints.volume.create -}}{{ include "driftline.fullname" . }}-checkpoints
{{- end -}}
{{- end -}}

{{/* What has to be said, and what does not go together: a pod that would only end is refused here. */}}
{{- define "driftline.check" -}}
{{- if not (or .Values.kafka.brokers .Values.trial.kafka.enabled) -}}
{{- fail "kafka.brokers: name the brokers, as b1:9092,b2:9092; or trial.kafka.enabled=true for one to try" -}}
{{- end -}}
{{- if not .Values.checkpoints.url -}}
{{- fail "checkpoints.url: name the store, as s3://bucket/path (gs://, az://; or file:///checkpoints with checkpoints.volume)" -}}
{{- end -}}
{{- if and (hasPrefix "file:" .Values.checkpoints.url) (not (include "driftline.storeClaim" .)) -}}
{{- fail "checkpoints.url: a store of files needs a volume that all pods mount: checkpoints.volume.existingClaim, or .create" -}}
{{- end -}}
{{- if and (not .Values.api.open) (not (include "driftline.keysSecret" .)) -}}
{{- fail "api.keys: name a Secret with API keys (api.keys.existingSecret), or give them (api.keys.value); api.open=true where whoever reaches it may do all" -}}
{{- end -}}
{{- if and .Values.api.open (include "driftline.keysSecret" .) -}}
{{- fail "api.open: there are keys, so it is not open; take one of the two away" -}}
{{- end -}}
{{- if lt (int .Values.api.terminationGracePeriodSeconds) (add (int .Values.api.preStopSeconds) 15) -}}
{{- fail "api.terminationGracePeriodSeconds: it has to be 15 more than api.preStopSeconds, so that what was begun is finished" -}}
{{- end -}}
{{- end -}}
