{{/* What learners and API have in common; each takes (list . "learner" .Values.learner). */}}

{{- define "driftline.podMetadata" -}}
{{- $root := index . 0 -}}{{- $part := index . 2 -}}
annotations:
  checksum/options: {{ include (print $root.Template.BasePath "/options.yaml") $root | sha256sum }}
  {{- with include (print $root.Template.BasePath "/secrets.yaml") $root | trim }}
  checksum/secrets: {{ sha256sum . }}
  {{- end }}
  {{- with $part.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- with $part.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- include "driftline.labels" . | nindent 2 }}
{{- end -}}

{{- define "driftline.podSpec" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}{{- $part := index . 2 -}}
serviceAccountName: {{ include "driftline.serviceAccount" $root }}
automountServiceAccountToken: false
# A Service called `driftline` would set DRIFTLINE_PORT and the like, which are options.
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: {{ $part.terminationGracePeriodSeconds }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if kindIs "slice" $part.topologySpreadConstraints }}
{{- with $part.topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 2 }}
{{- end }}
{{- else }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "driftline.selector" (list $root $component) | nindent 8 }}
    {{- if eq $component "api" }}
    matchLabelKeys: [pod-template-hash]  # those of one version are spread, whatever the version before does
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The container's image, environment and mounts. */}}
{{- define "driftline.container" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}{{- $part := index . 2 -}}
image: {{ include "driftline.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- with $root.Values.securityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
resources: {{- toYaml $part.resources | nindent 2 }}
envFrom:
  - configMapRef: { name: {{ include "driftline.fullname" $root }} }
  {{- with include "driftline.storeSecret" $root }}
  - secretRef: { name: {{ . }} }
  {{- end }}
  {{- with $part.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "driftline.mounts" -}}
{{- $root := index . 0 -}}{{- $part := index . 2 -}}
- { name: data, mountPath: /data }
- { name: tmp, mountPath: /tmp }
{{- if include "driftline.kafkaSecret" $root }}
- { name: kafka-config, mountPath: /etc/driftline/kafka, readOnly: true }
{{- end }}
{{- if $root.Values.checkpoints.files.existingSecret }}
- { name: store-files, mountPath: /etc/driftline/store, readOnly: true }
{{- end }}
{{- if include "driftline.storeClaim" $root }}
- { name: checkpoints, mountPath: /checkpoints }
{{- end }}
{{- with $part.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "driftline.volumes" -}}
{{- $root := index . 0 -}}{{- $part := index . 2 -}}
# The kernels, which are laid there at the start, and bodies of requests.
- name: tmp
  emptyDir: { sizeLimit: 1Gi }
{{- with include "driftline.kafkaSecret" $root }}
- name: kafka-config
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- with $root.Values.checkpoints.files.existingSecret }}
- name: store-files
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- with include "driftline.storeClaim" $root }}
- name: checkpoints
  persistentVolumeClaim: { claimName: {{ . }} }
{{- end }}
{{- with $part.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
